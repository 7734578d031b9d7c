"""The formats of torch.save."""

from __future__ import annotations

from pathlib import Path

from .._api import Checkpoint
from . import checkpoint_format


@checkpoint_format(".bin", ".pt", ".pth", ".ckpt", in_folders=(".bin",))
def open_pytorch(path: Path, *, key: str | None = None) -> Checkpoint:
    """PyTorch's `torch.save`, of any version, read without running any pickled code."""
    from ..pickle.file import open_pickled

    return open_pickled(path, key=key)
