"""Run whole processes and measure them, with the standard library only."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SAMPLE_SECONDS = 0.02


class Failed(Exception):
    """A measurement could not be made; the message says why."""


@dataclass(frozen=True)
class Run:
    """What one process took.

    Attributes:
        seconds: From start to end, on the wall.
        cpu_seconds: In the process and in the kernel for it, over all CPUs.
        resident: Most bytes resident, mapped pages of files included.
        anonymous: Most bytes of anonymous memory in any sample; 0 unless sampled.
    """

    seconds: float
    cpu_seconds: float
    resident: int
    anonymous: int


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, sampled: bool = False) -> Run:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        env: Environment variables beside those of this process.
        sampled: Look at its anonymous memory every 20 ms.

    Raises:
        Failed: it ended with another code than 0.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=said, stderr=said)
        anonymous = _watch(process.pid) if sampled else 0
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Failed(f"{Path(command[0]).name} ended with {process.returncode}: {_end_of(said)}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, anonymous)


def in_turn(works: Sequence[Callable[[], Run]], runs: int) -> list[list[Run]]:
    """Do each work once uncounted, then all of them in turn, so that a slow minute of the machine meets them all."""
    for work in works:
        work()
    rounds = [[work() for work in works] for _ in range(runs)]
    return [list(column) for column in zip(*rounds, strict=True)]


def seconds_of(runs: Sequence[Run]) -> float:
    """The median."""
    return median(one.seconds for one in runs)


def _watch(pid: int) -> int:
    most = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        most = max(most, _anonymous(pid))
        time.sleep(SAMPLE_SECONDS)
    return most


def _anonymous(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # it has just ended, and has no memory any more


def _end_of(said: tempfile._TemporaryFileWrapper[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace").strip()[-500:] or "it said nothing"
