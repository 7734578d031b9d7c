"""Compact files of sparse models."""

from __future__ import annotations

from pathlib import Path

from .._api import Checkpoint
from ..sparse import SparseFile
from . import checkpoint_format


@checkpoint_format(".sparse")
def open_sparse(path: Path) -> Checkpoint:
    """Compact files of sparse models: one bit per entry, and the entries that are not zero."""
    return SparseFile(path)
