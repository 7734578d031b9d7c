"""One thread for every matrix: sums in the same order whatever the machine, and workers out of each other's way."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_lock = threading.Lock()
_inside = 0
_limits: Any = None  # what undoes them


@contextmanager
def one_thread() -> Generator[None]:
    """Keep linear algebra from threads of its own, in the whole process, until the last who asked for it leaves."""
    global _inside, _limits  # noqa: PLW0603  the libraries' setting is one for the process
    with _lock:
        _inside += 1
        if _inside == 1:
            _limits = _controller(len(sys.modules)).limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limits.restore_original_limits()


@lru_cache(maxsize=1)
def _controller(modules: int) -> Any:
    """The libraries of this process, looked up again once more modules are imported: each look takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
