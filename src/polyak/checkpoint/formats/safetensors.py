"""The safetensors format."""

from __future__ import annotations

from pathlib import Path

from .._api import Checkpoint
from ..safetensors import SafetensorsFile
from . import checkpoint_format


@checkpoint_format(".safetensors", in_folders=(".safetensors",))
def open_safetensors(path: Path) -> Checkpoint:
    """safetensors: a header in JSON, then the tensors."""
    return SafetensorsFile(path)
