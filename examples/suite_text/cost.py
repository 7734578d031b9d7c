"""What work costs: seconds of CPU time, which do not depend on what else the machine does, and memory."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """What something cost.

    Attributes:
        seconds: Of CPU time, over all threads.
        peak: Most bytes of memory of the process, torch and its libraries included; 0 where Linux does not tell.
    """

    seconds: float = 0.0
    peak: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.peak, other.peak))


@contextmanager
def measured() -> Generator[Cost]:
    """A cost that is filled in when the `with` ends."""
    cost, began = Cost(), time.process_time()
    if _RESET.exists():
        _RESET.write_text("5")  # forget the peak so far
    try:
        yield cost
    finally:
        cost.seconds, cost.peak = time.process_time() - began, _peak()


def _peak() -> int:
    if not _STATUS.exists():
        return 0
    lines = (line.split() for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "VmHWM:"), 0)
