"""One thread for every matrix: sums in the same order whatever the machine, and workers out of each other's way."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_PREFIXES, _SUFFIXES = ("scipy_openblas", "openblas"), ("64_", "")
_lock = threading.Lock()
_inside = 0
_before = 1


@contextmanager
def one_thread() -> Generator[None]:
    """Keep NumPy's OpenBLAS to one thread, where that is what it uses; other libraries are left alone."""
    global _inside, _before  # noqa: PLW0603  the library's setting is one for the process
    calls = _calls()
    with _lock:
        _inside += 1
        if _inside == 1 and calls is not None:
            _before = calls[0]()
            calls[1](1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and calls is not None:
                calls[1](_before)


@cache
def _calls() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    import numpy as np

    np.linalg.eigh(np.eye(1))  # loads the library
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return None
    paths = {line.split()[-1] for line in maps.splitlines() if "openblas" in line and "numpy" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        for prefix in _PREFIXES:
            for suffix in _SUFFIXES:
                get, put = (getattr(library, f"{prefix}_{v}_num_threads{suffix}", None) for v in ("get", "set"))
                if get is not None and put is not None:
                    return get, put
    return None
