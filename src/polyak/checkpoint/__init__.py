"""Checkpoints: named tensors that can be read a piece at a time, wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedFormat
from ._api import DTYPE_NAMES as DTYPE_NAMES
from ._api import DTYPES as DTYPES
from ._api import Bytes as Bytes
from ._api import Checkpoint as Checkpoint
from ._api import DType as DType
from ._api import Stamp as Stamp
from ._api import TensorSpec as TensorSpec
from ._low_rank import add_product as add_product
from ._peft import AdapterSettings as AdapterSettings
from ._peft import read_adapter_settings as read_adapter_settings
from ._peft import sort_adapter_names as sort_adapter_names
from .fingerprint import fingerprint as fingerprint
from .folder import inside as inside
from .folder import read_json as read_json
from .hub import locate as locate
from .layers import Stack as Stack
from .layers import layer_of as layer_of
from .layers import stacks as stacks
from .lora import open_factors as open_factors
from .lora import read_floats as read_floats
from .lora import with_lora as with_lora
from .masked import HEADS_FOLDER as HEADS_FOLDER
from .masked import MASKS_FOLDER as MASKS_FOLDER
from .masked import MASKS_KIND as MASKS_KIND
from .masked import mask_spec as mask_spec
from .masked import open_task as open_task
from .masked import scale_spec as scale_spec
from .masked import with_masks as with_masks
from .memory import MemoryCheckpoint as MemoryCheckpoint
from .pipeline import OWN_STEM as OWN_STEM
from .pipeline import components_of as components_of
from .pipeline import files_beside as files_beside
from .pipeline import models_in as models_in
from .pipeline import stem_of as stem_of
from .safetensors import SafetensorsFile as SafetensorsFile
from .safetensors import layout as layout
from .views import beneath as beneath
from .views import picked as picked
from .views import renamed as renamed
from .views import stripped as stripped
from .views import subset as subset
from .vocabulary.rows import MEAN_ROW as MEAN_ROW
from .vocabulary.rows import PADDING_ROW as PADDING_ROW
from .vocabulary.rows import ZERO_ROW as ZERO_ROW
from .vocabulary.rows import AlignedCheckpoint as AlignedCheckpoint
from .vocabulary.rows import MeanRows as MeanRows
from .vocabulary.rows import RowNumbers as RowNumbers
from .vocabulary.rows import TokenRows as TokenRows
from .vocabulary.tokenizer import TOKENIZER_FILE as TOKENIZER_FILE
from .vocabulary.tokenizer import TOKENIZER_SETTINGS as TOKENIZER_SETTINGS
from .vocabulary.tokenizer import Tokenizer as Tokenizer
from .vocabulary.tokenizer import read_tokenizer as read_tokenizer
from .vocabulary.tokenizer import refuse_unlike_tokenizers as refuse_unlike_tokenizers
from .vocabulary.tokenizer import tokenizer_union as tokenizer_union
from .vocabulary.tokenizer import with_tokens as with_tokens


def open(source: str | Path | Mapping[str, Any] | Checkpoint, *, key: str | None = None) -> Checkpoint:
    """Open a checkpoint; headers are read, tensors are not.

    Args:
        source: A Hugging Face folder; a .safetensors, .bin, .pt or .pth file; masks that a merge wrote, which open
            as the model that they cut out of it; or a state dict of NumPy arrays or torch tensors. A checkpoint is
            returned as it is.
        key: Where in a pickled file the state dict lies, such as `state_dict` or `model.ema`
            (default: the only place where there is one).

    Raises:
        CheckpointError: it is missing, damaged, or lies about itself.
        UnsupportedFormat: polyak knows the format and cannot read it.
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

        return open_folder(path)
    return _open_file(path, key)


def _open_file(path: Path, key: str | None) -> Checkpoint:
    from .folder import refuse_quantised

    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder.")
    if path.suffix == ".safetensors":
        from .masked import is_masks, open_task
        from .safetensors import SafetensorsFile

        file = SafetensorsFile(path)
        opened: Checkpoint = open_task(path) if is_masks(file) else file
    elif path.suffix in {".bin", ".pt", ".pth", ".ckpt"}:
        from .pickle.file import open_pickled

        opened = open_pickled(path, key=key)
    else:
        raise UnsupportedFormat(f"{path}: expected a folder or a .safetensors, .bin, .pt, .pth or .ckpt file.")
    refuse_quantised(opened)
    return opened
