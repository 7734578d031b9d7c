"""How fast are merges of whole matrices?  Against FusionBench for TSV-M and Iso-C, against LAPACK for ASWUDI.

Run it with a Python that has polyak and FusionBench 0.2.33: `make bench-spectral`. Both tools get the same state dicts
of float32 in memory and the same number of threads, and take turns in one process. polyak merges eight experts of all
matrices in the layers of a model; layers are alike, so that the others do one layer, and their times are multiplied.
FusionBench gets the differences from the base ready made. Results are kept after every row.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of torch that wait should not take the CPU meanwhile

import numpy as np
from _checkpoints import SHAPES, Llama
from _machine import machine
from threadpoolctl import threadpool_limits

HERE = Path(__file__).parent
RESULTS = HERE / "spectral.json"
EXPERTS = 8
CHECKED = ("q_proj", "down_proj")  # of which the error is measured: one square matrix, one that is not
TINY = Llama(16, 2, 40, 32)
WORKS = ("tsv_m", "iso_c", "aswudi")
State = dict[str, np.ndarray]


def main() -> None:
    options = _options(sys.argv[1:])
    _warm_up()
    for work in WORKS:
        if re.search(options.only, work):
            began = time.perf_counter()
            row = _row(work, options)
            _say(f"{work}: {row['ratio']:.2f} x the time of {row['against']}, {row['cpu_ratio']:.2f} x its CPU time")
            _say(f"  took {time.perf_counter() - began:.0f} s; errors {row.get('our_error')}, {row.get('their_error')}")
            if options.results:
                _keep(row, options)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spectral_speed.py", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each work (default: 3)")
    parser.add_argument("--shape", choices=[*SHAPES, "tiny"], default="150M", help="of the model (default: 150M)")
    parser.add_argument("--layers", type=int, help="that polyak merges (default: all)")
    parser.add_argument("--threads", type=int, default=_cpus(), help="of each tool (default: one a CPU)")
    parser.add_argument("--only", default="", metavar="PATTERN", help=f"works that match, of {', '.join(WORKS)}")
    parser.add_argument("--results", type=Path, help="file of results (default: spectral.json here, if 150M)")
    options = parser.parse_args(arguments)
    for name in ("runs", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1; got {getattr(options, name)}")
    options.model = TINY if options.shape == "tiny" else SHAPES[options.shape]
    options.layers = options.model.layers if options.layers is None else options.layers
    if not 1 <= options.layers <= options.model.layers:
        parser.error(f"--layers must be from 1 to {options.model.layers}; got {options.layers}")
    try:
        if not any(re.search(options.only, work) for work in WORKS):
            parser.error(f"--only matches none of {', '.join(WORKS)}; got {options.only!r}")
    except re.error as error:
        parser.error(f"--only is not a regular expression ({error}); got {options.only!r}")
    if options.results is None and options.shape == "150M":
        options.results = RESULTS
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _row(work: str, options: argparse.Namespace) -> dict[str, Any]:
    base, experts = _family(options.model, options.layers)
    measure = _against_lapack if work == "aswudi" else _against_fusionbench
    said = {"layers": options.layers, "layers_in_all": options.model.layers, "threads": options.threads}
    return {"work": work, **measure(work, base, experts, options), **said, "runs": options.runs}


def _keep(row: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Add a row to the file of results, in place of an older one of the same work."""
    path: Path = options.results
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    rows = {one["work"]: one for one in [*found["rows"], row | {"load": f"{os.getloadavg()[0]:.2g}"}]}
    found = {"machine": _machine(), "shape": options.shape, "experts": EXPERTS}
    found["rows"] = [rows[work] for work in WORKS if work in rows]
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _one_layer(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if ".layers.0." in name}


def _family(model: Llama, layers: int) -> tuple[State, list[State]]:
    """The matrices of layers, of a base and of experts a twentieth of its size away."""
    wanted = {f".layers.{i}." for i in range(layers)}
    shapes = {n: s for n, s in model.shapes() if len(s) == 2 and any(layer in n for layer in wanted)}
    rng = np.random.default_rng(0)
    base = {n: 0.02 * rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    return base, [
        {n: t + 0.001 * rng.standard_normal(t.shape, dtype=np.float32) for n, t in base.items()} for _ in range(EXPERTS)
    ]


def _warm_up() -> None:
    base, experts = _family(TINY, 1)
    for method in WORKS:
        _ours(method, base, experts, 1)


def _ours(method: str, base: State, experts: list[State], threads: int) -> State:
    import polyak

    return polyak.merge_state_dicts(experts, method=method, base=base, workers=threads)


def _against_fusionbench(method: str, base: State, experts: list[State], options: argparse.Namespace) -> dict[str, Any]:
    theirs = _fusionbench(method, base, experts, options.threads)
    ours = lambda: _ours(method, base, experts, options.threads)  # noqa: E731
    (wanted, theirs_s), (found, ours_s) = _in_turn([theirs, ours], options.runs)
    errors = [
        _errors(method, name, base, experts, tensor, found[name])
        for name, tensor in wanted.items()
        if any(one in name for one in CHECKED)
    ]
    return {
        "against": f"FusionBench {version('fusion-bench')}",
        "target": "at most 1/3",
        **_times([one * options.layers for one in theirs_s], ours_s),
        "their_error": max(pair[0] for pair in errors),
        "our_error": max(pair[1] for pair in errors),
    }


def _fusionbench(method: str, base: State, experts: list[State], threads: int) -> Callable[[], State]:
    """FusionBench's own merge of one layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from fusion_bench.method.isotropic_merging.iso_utils import iso_c
        from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction
    torch.set_num_threads(threads)
    vectors = [{n: torch.from_numpy(t - base[n]) for n, t in _one_layer(one).items()} for one in experts]
    merge = compute_and_sum_svd_mem_reduction if method == "tsv_m" else iso_c

    def run() -> State:
        with contextlib.redirect_stdout(io.StringIO()):
            return {n: t.numpy() for n, t in merge(vectors, accelerator="cpu").items()}

    return run


def _errors(
    method: str, name: str, base: State, experts: list[State], theirs: np.ndarray, ours: np.ndarray
) -> tuple[float, float]:
    """Relative errors against float64 of what each adds to the base."""
    deltas = [(one[name] - base[name]).astype(np.float64) for one in experts]
    wanted = _tsv_m(deltas) if method == "tsv_m" else _iso_c(deltas)
    # What polyak returns is rounded to the size of the base: the definition's own result is what is compared.
    import polyak.methods as methods

    methods.load_all()
    stack = np.stack([one[name] - base[name] for one in experts])
    exact = methods.resolve(method)(stack, np.zeros_like(base[name]), name=name)
    assert np.abs(base[name] + exact - ours).max() < 1e-6
    return _relative(theirs, wanted), _relative(exact, wanted)


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


def _against_lapack(method: str, base: State, experts: list[State], options: argparse.Namespace) -> dict[str, Any]:
    grams: list[np.ndarray] = []
    for name in _one_layer(base):
        delta = (experts[0][name] - base[name]).astype(np.float64)
        grams.append(delta.T @ delta + 1e-9 * np.eye(delta.shape[1]))

    def decompose() -> None:
        with threadpool_limits(options.threads, user_api="blas"):
            for gram in grams:
                np.linalg.eigh(gram)

    ours = lambda: _ours(method, base, experts, options.threads)  # noqa: E731
    (_, theirs_s), (_, ours_s) = _in_turn([decompose, ours], options.runs)
    times = _times([one * options.layers for one in theirs_s], ours_s)
    return {"against": "numpy.linalg.eigh of (d_in, d_in)", "target": "at most 1.5", **times}


class Took(NamedTuple):
    """Seconds on the wall, and of all CPUs: the second suffers less from whatever else is running."""

    wall: float
    cpu: float

    def __mul__(self, times: Any) -> Took:
        return Took(self.wall * times, self.cpu * times)


def _in_turn(works: Sequence[Callable[[], Any]], runs: int) -> list[tuple[Any, list[Took]]]:
    """The last result and the times of each; a slow minute of the machine meets them all."""
    times: list[list[Took]] = [[] for _ in works]
    results: list[Any] = [None] * len(works)
    for run in range(runs):
        for i, work in enumerate(works):
            _say(f"  run {run + 1} of {runs}, {('theirs', 'ours')[i]}")
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
        "their_cpu_s": median(one.cpu for one in theirs),
        "our_cpu_s": median(one.cpu for one in ours),
        "their_runs_s": theirs,
        "our_runs_s": ours,
    }


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _machine() -> dict[str, str]:
    found = {name: value for name, value in machine(HERE).items() if name != "file system"}
    with contextlib.suppress(ImportError):
        found["torch"] = version("torch")
    return found


if __name__ == "__main__":
    main()
