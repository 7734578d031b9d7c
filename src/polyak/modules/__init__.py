"""Live torch modules, and the mapping between their parameters and the tensors of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .live import LiveModel as LiveModel
from .recognition import Build as Build
from .recognition import bring_to_life as bring_to_life
from .recognition import from_factory as from_factory
from .transformers import from_transformers as from_transformers
from .transformers import pooled_classifier as pooled_classifier
from .transformers import quietly as quietly
from .transformers import read_tokenizer as read_tokenizer

if TYPE_CHECKING:
    from .pooled import pool as pool

_NEED_TORCH = {"pool": "pooled"}  # imported when used: torch takes seconds


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
