"""Open a checkpoint of any format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ._api import Checkpoint
from .formats import open_file


def open(source: str | Path | Mapping[str, Any] | Checkpoint, *, key: str | None = None) -> Checkpoint:
    """Open a checkpoint; headers are read, tensors are not.

    Args:
        source: A Hugging Face folder; a file in any registered format (.safetensors, .bin, .pt, .pth, .ckpt, and those
            of installed packages); masks that a merge wrote, which open as the model of their task; or a
            state dict of NumPy arrays or torch tensors. A checkpoint is returned as it is.
        key: Path of the state dict in a pickled file, such as `state_dict` or `model.ema`
            (default: the only state dict in it).

    Raises:
        CheckpointError: it is missing, damaged, or its header does not match its data.
        UnsupportedFormat: no registered format has the suffix of the file, the model is quantised, or the file or
            folder is one of a training framework, which another tool converts.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        from .memory import MemoryCheckpoint

        return MemoryCheckpoint(source)
    path = Path(source)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
    if not exists:
        raise CheckpointError(f"{path} does not exist.")
    if is_folder:
        from .folder import open_folder

        if key is not None:
            raise CheckpointError(
                f"{path} is a folder, in which no key can be chosen. Name the file, or leave out the key."
            )
        return open_folder(path)
    return _open_file(path, key)


def _open_file(path: Path, key: str | None) -> Checkpoint:
    from .masked import is_masks, open_task
    from .quantised import refuse_quantised
    from .training_folders import refuse_part

    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder.")
    refuse_part(path)
    opened = open_file(path, key)
    if is_masks(opened):
        opened.close()
        opened = open_task(path, opener=open)
    refuse_quantised(opened)
    return opened
