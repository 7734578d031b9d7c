"""Single numbers: memory, many models, many tensors, starting up, installing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from _bench import HERE, Bench, Recipe, console_script, recipe_of
from _process import Failed, in_turn, run, seconds_of
from _results import Line, Measured
from _rows import ROWS

MB = 10**6
MEMORY_TARGET = 400 * MB
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
METHODS = {"linear": "linear", "TIES": "ties"}


def lines(bench: Bench) -> Iterator[Line]:
    """What there is to measure."""
    for name, measure in _facts(bench):
        yield Line("facts", name, measure)


def _facts(bench: Bench) -> Iterator[tuple[str, Callable[[], Measured]]]:
    for title, method in METHODS.items():
        yield f"{title} with 1 and with 2 workers, {bench.shape}", lambda method=method: workers(bench, method)
    for title, method in METHODS.items():
        for count in (2, 8, 30):
            yield (
                f"{title}, {count} models, {bench.small}: time, peak anonymous memory",
                lambda method=method, count=count: many_models(bench, method, count),
            )
    for title, method in METHODS.items():
        for shape in dict.fromkeys([bench.small, bench.shape]):
            yield (
                f"{title}, 3 models, {shape}: peak anonymous memory",
                lambda method=method, shape=shape: memory(bench, method, shape),
            )
        if bench.large:
            yield f"{title}, 3 models, 3B: time, peak anonymous memory", lambda method=method: large(bench, method)
    for dtype in ("F32", "F16", "BF16", "F8_E4M3"):
        yield f"linear, 3 models, {bench.small}, {dtype}", lambda dtype=dtype: stored_as(bench, dtype)
    yield "linear, 3 models of 20,000 tiny tensors", lambda: tiny_tensors(bench)
    yield "`polyak plan`, 8 models of 1,000 tensors", lambda: planning(bench)
    yield "`polyak --help`: time, maximum resident memory", lambda: starting(bench)
    yield f"compiling all kernels of TIES, once, {bench.small}", lambda: compiling(bench, [_of(bench, "ties")])
    yield f"compiling the kernels of all rows, once, {bench.small}", lambda: compiling(bench, _of_all_rows(bench))
    yield f"linear, 3 models, {bench.shape}, nothing in the page cache", lambda: cold(bench)


def environment_lines(bench: Bench) -> Iterator[Line]:
    """What takes minutes and the package registry."""
    yield Line("facts", "fresh environment with polyak in it", lambda: environment(bench))


def workers(bench: Bench, method: str) -> Measured:
    """The same merge on one CPU and on two."""
    recipe = _recipe(bench, method, bench.shape)
    runs = in_turn([bench.merging(recipe, "--workers", str(n)) for n in (1, 2)], bench.runs)
    one, two = map(seconds_of, runs)
    return Measured(f"{one:.3g} s and {two:.3g} s")


def many_models(bench: Bench, method: str, count: int) -> Measured:
    """Time and memory by the number of models."""
    work = bench.merging(_recipe(bench, method, bench.small, count), sampled=True)
    [runs] = in_turn([work], bench.runs)
    most = max(one.anonymous for one in runs)
    value = f"{seconds_of(runs):.3g} s, {most / MB:.0f} MB"
    return Measured(value, f"{MEMORY_TARGET / MB:.0f} MB", most <= MEMORY_TARGET)


def memory(bench: Bench, method: str, shape: str) -> Measured:
    """Memory by the size of the models; one counted run, for the largest take minutes."""
    [[one]] = in_turn([bench.merging(_recipe(bench, method, shape), sampled=True)], 1)
    most = one.anonymous
    return Measured(f"{most / MB:.0f} MB", f"{MEMORY_TARGET / MB:.0f} MB", most <= MEMORY_TARGET)


def stored_as(bench: Bench, dtype: str) -> Measured:
    """Time by the dtype of inputs and output."""
    _, *experts = bench.family(bench.small, dtype=dtype)
    return _against_limit(bench, recipe_of("linear", experts))


def tiny_tensors(bench: Bench) -> Measured:
    """What a tensor costs that holds next to nothing."""
    _, *experts = bench.family("20000-tensors")
    [runs] = in_turn([bench.merging(recipe_of("linear", experts))], bench.runs)
    return _in_time(seconds_of(runs), 5)


def planning(bench: Bench) -> Measured:
    """How long until a person sees what would be done."""
    base, *experts = bench.family("1000-tensors", 8)
    command = [console_script(), "plan", bench.written(recipe_of("ties", experts, base))]
    [runs] = in_turn([lambda: run(command)], bench.runs)
    return _in_time(seconds_of(runs), 1)


def starting(bench: Bench) -> Measured:
    """How long until a person sees the commands."""
    command = [console_script(), "--help"]
    [runs] = in_turn([lambda: run(command)], bench.runs)
    seconds, most = seconds_of(runs), max(one.resident for one in runs)
    return Measured(f"{seconds:.2g} s, {most / MB:.0f} MB", "0.3 s, 60 MB", seconds <= 0.3 and most <= 60 * MB)


def large(bench: Bench, method: str) -> Measured:
    """A merge of large models end to end beside its limit, and its memory; one counted run, for it takes minutes."""
    recipe = _recipe(bench, method, "3B")
    [[limit], [ours]] = in_turn([lambda: bench.limit(recipe), bench.merging(recipe, sampled=True)], 1)
    value = f"{ours.seconds:.3g} s, {ours.seconds / limit.seconds:.2f} times the limit, {ours.anonymous / MB:.0f} MB"
    return Measured(value, f"{MEMORY_TARGET / MB:.0f} MB", ours.anonymous <= MEMORY_TARGET)


def compiling(bench: Bench, recipes: list[Recipe]) -> Measured:
    """What first merges take beyond the next, one recipe after the other, with Numba's cache in a new folder."""
    seconds = 0.0
    with tempfile.TemporaryDirectory(dir=bench.scratch) as cache:
        for recipe in recipes:
            work = bench.merging(recipe, env={"NUMBA_CACHE_DIR": cache})
            first = work()
            seconds += first.seconds - seconds_of([work() for _ in range(bench.runs)])
    return _in_time(seconds, 15)


def _of_all_rows(bench: Bench) -> list[Recipe]:
    return [row.recipe(replace(bench, shape=bench.small)) for row in ROWS]


def _of(bench: Bench, method: str) -> Recipe:
    return _recipe(bench, method, bench.small)


def cold(bench: Bench) -> Measured:
    """The merge and its limit when every byte comes from the disk."""
    if not os.access(DROP_CACHES, os.W_OK):
        raise Failed("only the system's administrator may empty the page cache")
    recipe = _recipe(bench, "linear", bench.shape)
    merging = bench.merging(recipe)

    def without_cache(work: Callable[[], object]) -> object:
        os.sync()
        DROP_CACHES.write_text("1")
        return work()

    limit, ours = in_turn(
        [lambda: without_cache(lambda: bench.limit(recipe)), lambda: without_cache(merging)], bench.runs
    )
    return _compared(seconds_of(limit), seconds_of(ours))


def environment(bench: Bench) -> Measured:
    """What an installation takes on disk, with Python's own pip in it."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        for command in (
            [sys.executable, "-m", "venv", folder],
            [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", HERE.parent],
        ):
            run(command)
        used = subprocess.run(["du", "-s", "-B1", folder], check=True, capture_output=True, text=True).stdout
    nbytes = int(used.split()[0])
    return Measured(f"{nbytes / MB:.0f} MB", "350 MB", nbytes <= 350 * MB)


def _recipe(bench: Bench, method: str, shape: str, experts: int = 3) -> Recipe:
    base, *paths = bench.family(shape, experts)
    return recipe_of(method, paths, None if method == "linear" else base)


def _against_limit(bench: Bench, recipe: Recipe) -> Measured:
    limit, ours = bench.compare(recipe)
    return _compared(seconds_of(limit), seconds_of(ours))


def _compared(limit: float, ours: float) -> Measured:
    return Measured(f"{ours:.3g} s, {ours / limit:.2f} times the limit")


def _in_time(seconds: float, target: float) -> Measured:
    return Measured(f"{seconds:.2g} s", f"{target:g} s", seconds <= target)
