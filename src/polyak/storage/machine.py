"""CPUs and memory that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_count() -> int:
    """Number of CPUs that this process may run on: those of its affinity mask if there is one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory(default: int = 2 * 2**30) -> int:
    """Bytes of memory that are free or can be freed; `default` where /proc/meminfo does not exist."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return default
