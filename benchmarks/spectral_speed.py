"""How fast are merges of whole matrices?  Against FusionBench for TSV-M and Iso-C, against LAPACK for ASWUDI.

Run it with a Python that has polyak and FusionBench 0.2.33: `make bench-spectral`. Both tools get the same state dicts
of float32 in memory and all CPUs, take turns in one process, and merge eight experts of the matrices of a layer. Layers
are alike, so that all of a model take as many times longer. FusionBench gets the differences from the base ready made.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from _checkpoints import SHAPES
from _machine import machine
from threadpoolctl import threadpool_limits

HERE = Path(__file__).parent
EXPERTS = 8
CHECKED = ("q_proj", "down_proj")  # of which the error is measured: one square matrix, one that is not
State = dict[str, np.ndarray]


def main() -> None:
    options = _options(sys.argv[1:])
    base, experts = _family(options.shape)
    _warm_up()
    rows = [_against_fusionbench(one, base, experts, options.runs) for one in ("tsv_m", "iso_c") if not options.lapack]
    rows.append(_against_lapack(base, experts, options.runs))
    print(json.dumps(rows, indent=2))
    if options.results:
        found = {"machine": _machine(), "shape": options.shape, "experts": EXPERTS, "runs": options.runs, "rows": rows}
        options.results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="spectral_speed.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each work (default: 3)")
    parser.add_argument("--shape", choices=[*SHAPES, "tiny"], default="150M", help="whose layer (default: 150M)")
    parser.add_argument("--lapack", action="store_true", help="without FusionBench")
    parser.add_argument("--results", type=Path, help="file of results (default: spectral.json here, if 150M in full)")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f"--runs must be at least 1; got {options.runs}")
    if options.results is None and options.shape == "150M" and not options.lapack:
        options.results = HERE / "spectral.json"
    return options


def _family(shape: str) -> tuple[State, list[State]]:
    """The matrices of one layer, of a base and of experts a twentieth of its size away."""
    if shape == "tiny":
        shapes = {"q_proj": (16, 16), "down_proj": (16, 40)}
    else:
        shapes = {n: s for n, s in SHAPES[shape].shapes() if ".layers.0." in n and len(s) == 2}
    rng = np.random.default_rng(0)
    base = {n: 0.02 * rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    return base, [
        {n: t + 0.001 * rng.standard_normal(t.shape, dtype=np.float32) for n, t in base.items()} for _ in range(EXPERTS)
    ]


def _warm_up() -> None:
    base, experts = _family("tiny")
    for method in ("tsv_m", "iso_c", "aswudi"):
        _ours(method, base, experts)


def _ours(method: str, base: State, experts: list[State]) -> State:
    import polyak

    return polyak.merge_state_dicts(experts, method=method, base=base, workers=_cpus())


def _against_fusionbench(method: str, base: State, experts: list[State], runs: int) -> dict[str, Any]:
    theirs = _fusionbench(method, base, experts)
    (wanted, theirs_s), (found, ours_s) = _in_turn([theirs, lambda: _ours(method, base, experts)], runs)
    moved = {n: t - base[n] for n, t in found.items()}
    errors = {n: _errors(method, n, base, experts, wanted, moved) for n in base if n.endswith(("weight", *CHECKED))}
    errors = {n: pair for n, pair in errors.items() if pair}
    return {
        "work": method,
        "against": f"FusionBench {version('fusion-bench')}",
        "target": "at most 1/3",
        **_times(theirs_s, ours_s),
        "their_error": max(pair[0] for pair in errors.values()),
        "our_error": max(pair[1] for pair in errors.values()),
    }


def _fusionbench(method: str, base: State, experts: list[State]) -> Callable[[], State]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from fusion_bench.method.isotropic_merging.iso_utils import iso_c
        from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction
    torch.set_num_threads(_cpus())
    vectors = [{n: torch.from_numpy(t - base[n]) for n, t in one.items()} for one in experts]
    merge = compute_and_sum_svd_mem_reduction if method == "tsv_m" else iso_c

    def run() -> State:
        with contextlib.redirect_stdout(io.StringIO()):
            return {n: t.numpy() for n, t in merge(vectors, accelerator="cpu").items()}

    return run


def _errors(
    method: str, name: str, base: State, experts: list[State], theirs: State, ours: State
) -> tuple[float, float] | None:
    """Relative errors against float64 of what each adds to the base; None for matrices that are not looked at."""
    if not any(one in name for one in CHECKED):
        return None
    deltas = [(one[name] - base[name]).astype(np.float64) for one in experts]
    wanted = _tsv_m(deltas) if method == "tsv_m" else _iso_c(deltas)
    # What polyak returns is rounded to the size of the base: the definition's own result is what is compared.
    import polyak.methods as methods

    methods.load_all()
    stack = np.stack([one[name] - base[name] for one in experts])
    exact = methods.resolve(method)(stack, np.zeros_like(base[name]), name=name)
    assert np.abs(exact - ours[name]).max() < 1e-6
    return _relative(theirs[name], wanted), _relative(exact, wanted)


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _tsv_m(deltas: list[np.ndarray]) -> np.ndarray:
    k = min(deltas[0].shape) // len(deltas)
    cut = [(u[:, :k], s[:k], vt[:k].T) for u, s, vt in (np.linalg.svd(d, full_matrices=False) for d in deltas)]
    u, s, v = (np.concatenate(part, axis=-1) for part in zip(*cut, strict=True))
    return _polar(u) * s @ _polar(v).T


def _iso_c(deltas: list[np.ndarray]) -> np.ndarray:
    total = np.sum(deltas, axis=0)
    return np.linalg.svd(total, compute_uv=False).mean() * _polar(total)


def _polar(matrix: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def _against_lapack(base: State, experts: list[State], runs: int) -> dict[str, Any]:
    grams: list[np.ndarray] = []
    for name in base:
        delta = (experts[0][name] - base[name]).astype(np.float64)
        grams.append(delta.T @ delta + 1e-9 * np.eye(delta.shape[1]))

    def decompose() -> None:
        with threadpool_limits(_cpus(), user_api="blas"):
            for gram in grams:
                np.linalg.eigh(gram)

    (_, theirs_s), (_, ours_s) = _in_turn([decompose, lambda: _ours("aswudi", base, experts)], runs)
    against = "numpy.linalg.eigh of (d_in, d_in)"
    return {"work": "aswudi", "against": against, "target": "at most 1.5", **_times(theirs_s, ours_s)}


class Took(NamedTuple):
    """Seconds on the wall, and of all CPUs: the second suffers less from whatever else is running."""

    wall: float
    cpu: float


def _in_turn(works: Sequence[Callable[[], Any]], runs: int) -> list[tuple[Any, list[Took]]]:
    """The last result and the times of each; a slow minute of the machine meets them all."""
    times: list[list[Took]] = [[] for _ in works]
    results: list[Any] = [None] * len(works)
    for _ in range(runs):
        for i, work in enumerate(works):
            began = time.perf_counter(), time.process_time()
            results[i] = work()
            times[i].append(Took(time.perf_counter() - began[0], time.process_time() - began[1]))
    return list(zip(results, times, strict=True))


def _times(theirs: list[Took], ours: list[Took]) -> dict[str, Any]:
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "their_s": median(one.wall for one in theirs),
        "our_s": median(one.wall for one in ours),
        "ratio": median(our.wall / their.wall for our, their in pairs),
        "cpu_ratio": median(our.cpu / their.cpu for our, their in pairs),
        "their_runs_s": theirs,
        "our_runs_s": ours,
    }


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _machine() -> dict[str, str]:
    load = f"{os.getloadavg()[0]:.2g}"
    return {name: value for name, value in machine(HERE).items() if name != "file system"} | {
        "load": load,
        "torch": version("torch"),
    }


if __name__ == "__main__":
    main()
