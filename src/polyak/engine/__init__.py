"""The engine: carries out plans, in bounded memory, with the same bytes whatever the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .into_folder import Progress as Progress
from .into_folder import Report as Report
from .into_folder import run as run

if TYPE_CHECKING:
    from .in_memory import run_in_memory as run_in_memory


def __getattr__(name: str) -> Any:
    """Merges in memory need much that merges of files do not."""
    if name != "run_in_memory":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .in_memory import run_in_memory

    return run_in_memory
