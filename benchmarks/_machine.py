"""The machine that something was measured on: no host names, no paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine(work: Path) -> dict[str, str]:
    """Whatever the numbers depend on.

    Args:
        work: Folder of inputs and outputs; its file system counts.
    """
    return {
        "CPU": _cpu(),
        "CPUs": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(work),
        "Python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "numba", "polyak")},
    }


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0]
    return "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
