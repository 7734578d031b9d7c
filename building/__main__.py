"""Compile the kernels of a wheel: `python -m building --levels x86-64-v3`, in an environment that has polyak[compile].

Numba translates every variant to bitcode for no processor in particular; LLVM makes machine code of that per level; a
linker makes one shared library per level. Finished parts are kept under a digest of all sources and compilers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import xxhash

from . import back, front

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *("building/__main__.py", "building/front.py", "building/back.py"),
    *("src/polyak/native/*.py", "src/polyak/kernels/*.py", "src/polyak/checkpoint/_low_rank.py"),
)
GROUPS = 6  # modules that are compiled apart: enough for several CPUs, few enough to share what kernels have in common


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(prog="python -m building", description=__doc__)
    parser.add_argument("--levels", default=",".join(back.TARGETS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "kernels", help="cache (default: %(default)s)")
    parser.add_argument("--into", type=Path, help="folder into which the libraries are copied")
    parser.add_argument("--only", default="", metavar="REGEX", help="kernels by name, for a try (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per CPU)")
    arguments = parser.parse_args()
    for path in build(arguments.levels.split(","), arguments.out, arguments.jobs, arguments.only):
        print(f"{path} {path.stat().st_size:,} bytes")
        if arguments.into:
            arguments.into.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, arguments.into)


def build(levels: list[str], out: Path, jobs: int, only: str = "") -> list[Path]:
    """Build one library per level, and return their files.

    Args:
        levels: Keys of `back.TARGETS`.
        out: Folder for the libraries and what they are made of.
        jobs: Processes.
        only: Regular expression of the names of kernels; those left out are compiled on the user's machine.
    """
    if unknown := set(levels) - set(back.TARGETS):
        sys.exit(f"unknown level {', '.join(sorted(unknown))}. Known: {', '.join(back.TARGETS)}.")
    folder = out / digest(only)
    folder.mkdir(parents=True, exist_ok=True)
    groups = 1 if only else GROUPS
    os.environ |= front.ENVIRONMENT  # for the processes, before they import Numba
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        _each([pool.submit(front.translate, folder, group, groups, only) for group in range(groups)])
        missing = [level for level in levels if not back.library_of(folder, level).exists()]
        _each([pool.submit(back.compile_group, folder, group, level) for level in missing for group in range(groups)])
    for level in missing:
        back.link(folder, level, groups)
    return [back.library_of(folder, level) for level in levels]


def digest(only: str) -> str:
    """Digest everything that the libraries depend on."""
    paths = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    compilers = f"numba {version('numba')}, llvmlite {version('llvmlite')}"
    parts = [compilers.encode(), only.encode(), *(path.name.encode() + b"\0" + path.read_bytes() for path in paths)]
    return xxhash.xxh3_64_hexdigest(b"\0".join(parts))


def _each(futures: list[Future[None]]) -> None:
    for done in as_completed(futures):
        done.result()


if __name__ == "__main__":
    main()
