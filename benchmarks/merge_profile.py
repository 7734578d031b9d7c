"""Where the time of one merge goes: `python merge_profile.py RECIPE`, or `--method ties --shape 60M`.

Parts are timed where they are called, so the table is of one process with the timers in it: read shares, not totals.
A part's wall time holds what its thread waited, for the disk, for Python's lock or for a CPU.
"""

from __future__ import annotations

import time

BEGAN = (time.perf_counter(), time.thread_time())

import argparse  # noqa: E402  what was imported so far belongs to starting Python
import json  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from _bench import HERE, Bench, recipe_of  # noqa: E402
from _machine import machine  # noqa: E402
from _results import write_json  # noqa: E402
from _rows import ROWS  # noqa: E402


class Timers:
    """Wall and CPU seconds of named parts, over all threads; what runs inside another part is taken from that one."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._lock, self._local = threading.Lock(), threading.local()

    def add(self, part: str, wall: float, cpu: float) -> None:
        with self._lock:
            self.wall[part] = self.wall.get(part, 0.0) + wall
            self.cpu[part] = self.cpu.get(part, 0.0) + cpu

    def time(self, owner: Any, name: str, part: str) -> None:
        """Replace a function by itself with a timer."""
        fn: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._local, "inner", None)
            self._local.inner = inner = [0.0, 0.0]
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return fn(*args, **kwargs)
            finally:
                taken = time.perf_counter() - wall, time.thread_time() - cpu
                self.add(part, taken[0] - inner[0], taken[1] - inner[1])
                self._local.inner = outer
                if outer is not None:
                    outer[0] += taken[0]
                    outer[1] += taken[1]

        setattr(owner, name, timed)


def main() -> None:
    options = _options()
    timers = Timers()
    with tempfile.TemporaryDirectory(dir=options.work, prefix="run-") as scratch:
        recipe = options.recipe or _recipe(options, Path(scratch))
        for warm in (True, False):  # once, so that inputs are in the page cache and kernels compiled
            seconds = _merge(recipe, Path(scratch) / "out", None if warm else timers)
    _tell(timers, seconds)
    if options.keep:
        _keep(options.keep, options.recipe.stem if options.recipe else options.method, timers, seconds, options)


def _keep(path: Path, name: str, timers: Timers, seconds: float, options: argparse.Namespace) -> None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"merges": {}}
    parts = {part: {"wall": timers.wall[part], "cpu": timers.cpu[part]} for part in sorted(timers.wall)}
    found |= {"machine": machine(options.work), "shape": options.shape}
    found["merges"][name] = {"seconds": seconds, "parts": parts}
    write_json(path, found)


def _merge(recipe: Path, out: Path, timers: Timers | None) -> float:
    wall, cpu = (time.perf_counter(), time.thread_time()) if timers is None else (0.0, 0.0)
    from polyak import api
    from polyak.engine import run

    if timers is None:
        _IMPORTS.append((time.perf_counter() - wall, time.thread_time() - cpu))
    else:
        timers.add("start: Python and imports", *(a + b for a, b in zip(_STARTED, _IMPORTS[0], strict=True)))
        _watch(timers)
    began = time.perf_counter()
    run(api.plan(api.load_recipe(recipe)), out)
    shutil.rmtree(out)
    return time.perf_counter() - began


def _watch(timers: Timers) -> None:
    import os

    from polyak import api
    from polyak.checkpoint._file import RangeFile
    from polyak.engine.into_folder import _Merge
    from polyak.engine.output.shards import ShardWriter
    from polyak.engine.schedule.threads import Scheduler
    from polyak.native._kernel import Kernel
    from polyak.storage.digest import Leaves
    from polyak.storage.staging import Draft

    timers.time(api, "load_recipe", "start: recipe and plan")
    timers.time(api, "plan", "start: recipe and plan")
    timers.time(ShardWriter, "__init__", "start: laying out the output")
    timers.time(Scheduler, "_work", "workers: Python between the parts")
    timers.time(Scheduler, "_next", "workers: waiting for work")
    timers.time(RangeFile, "read_into", "workers: read")
    timers.time(Leaves, "update", "workers: digest")
    timers.time(Kernel, "__call__", "workers: kernels")
    timers.time(ShardWriter, "_write", "workers: write")
    timers.time(os, "fdatasync", "sync, beside the merge")
    timers.time(ShardWriter, "close", "end: last sync")
    timers.time(_Merge, "_write_sidecars", "end: provenance and card")
    timers.time(Draft, "publish", "end: publication")


def _tell(timers: Timers, seconds: float) -> None:
    width = max(map(len, timers.wall))
    print(f"{'part':{width}}  {'wall s':>8}  {'CPU s':>8}")
    for part in sorted(timers.wall):
        print(f"{part:{width}}  {timers.wall[part]:8.3f}  {timers.cpu[part]:8.3f}")
    print(f"{'the merge, without start of Python':{width}}  {seconds:8.3f}")


def _recipe(options: argparse.Namespace, scratch: Path) -> Path:
    bench = Bench(options.work.resolve(), scratch.resolve(), 1, options.shape, options.shape)
    row = next(row for row in ROWS if row.method == options.method)
    base, *experts = bench.family(options.shape)
    return bench.written(recipe_of(row.method, experts[: row.models], base if row.base else None, **row.settings))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="merge_profile.py", description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?", help="a recipe (default: a row of merge_speed.py)")
    parser.add_argument("--method", default="linear", choices=list(dict.fromkeys(row.method for row in ROWS)))
    parser.add_argument("--shape", default="500M", help="of the models: 500M (default), 60M, 3B, tiny")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder of inputs and outputs")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add it to a file of profiles: profile.json here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


_STARTED = (BEGAN[1], BEGAN[1])  # what Python itself took: its CPU time until the first line
_IMPORTS: list[tuple[float, float]] = []

if __name__ == "__main__":
    main()
