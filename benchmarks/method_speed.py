"""What does each merge method cost?  Every registered one, paired with the limit of the machine.

README.md beside this file says how that is measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _bench import FILE, HERE, Bench, Recipe, recipe_of
from _machine import machine
from _process import Failed, seconds_of
from _results import Line, Measured, Results

SHAPE = "500M"
MODELS = 3
STREAMING, RANKING = 4, 10  # times the limit that a method may take: in tiles of entries, and of whole rows


@dataclass(frozen=True)
class Work:
    """One method with some settings.

    Attributes:
        method: Its name.
        settings: Beyond the defaults.
    """

    method: str
    settings: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def name(self) -> str:
        return ", ".join([self.method, *(f"{name} {json.dumps(value)}" for name, value in self.settings.items())])


# What the defaults leave out and costs more.
VARIANTS = [
    Work("ties", {"granularity": "model"}),
    Work("breadcrumbs", {"granularity": "tensor"}),
    Work("dare_linear", {"rescale": "l1"}),
    Work("della", {"rescale": "l1"}),
    Work("sce", {"select_topk": 0.1}),
    Work("nuslerp", {"flatten": False}),
    Work("nuslerp", {"flatten": False, "along": "first"}),
    Work("model_stock", {"granularity": "row"}),
]


def main() -> None:
    options = _options(sys.argv[1:])
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = re.compile(options.only, re.IGNORECASE).search
    with tempfile.TemporaryDirectory(dir=options.work, prefix="run-") as scratch:
        bench = Bench(options.work.resolve(), Path(scratch).resolve(), options.runs, options.shape, options.shape)
        try:
            results = Results(options.json, machine(options.work), afresh=not (options.only or options.resume))
            results.ran(f"python benchmarks/method_speed.py --shape {options.shape} --runs {options.runs}")
            lines = (_line(bench, work) for work in works() if wanted(work.name))
            failed = results.measure(line for line in lines if not (options.resume and results.has(line)))
        except Failed as error:
            sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"{failed} could not be measured")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="method_speed.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each method (default: 3)")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only what this regular expression finds")
    parser.add_argument("--resume", action="store_true", help="keep what an interrupted run measured, do the rest")
    parser.add_argument("--shape", default=SHAPE, help="of the models: 500M (default), 60M, 3B, tiny")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder of inputs and outputs")
    parser.add_argument("--json", type=Path, help="file of results (default: methods.json here, if 500M)")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f"--runs must be at least 1; got {options.runs}")
    options.json = options.json or (HERE if options.shape == SHAPE else options.work) / "methods.json"
    return options


def works() -> Iterator[Work]:
    """Every method as it is by default, and some variants."""
    from polyak import methods

    methods.load_all()
    for name in sorted(methods.registry):
        yield Work(name)
        yield from (variant for variant in VARIANTS if variant.method == name)


def recipe_for(work: Work, bench: Bench) -> Recipe:
    """Three models, or as many as the method takes, and the base where it looks at one."""
    from polyak.methods import resolve

    method = resolve(work.method)
    base, *experts = bench.family(bench.shape)
    models = experts[: method.models[1] or MODELS]
    return recipe_of(work.method, models, base if method.uses_base else None, **work.settings)


def _line(bench: Bench, work: Work) -> Line:
    return Line("rows", f"{work.name}, {bench.shape}", lambda: _measured(bench, work))


def _measured(bench: Bench, work: Work) -> Measured:
    from polyak.methods import Law, resolve

    recipe = recipe_for(work, bench)
    limit, ours = bench.compare(recipe)
    ratio = seconds_of(ours) / seconds_of(limit)
    entries = (Path(recipe["models"][0]) / FILE).stat().st_size / 2  # bfloat16
    target = STREAMING if Law.ELEMENTWISE in resolve(work.method).laws else RANKING
    entry = {
        "limit_s": _rounded(seconds_of(limit)),
        "ours_s": _rounded(seconds_of(ours)),
        "ratio": _rounded(ratio),
        "target": str(target),
        "inputs": len(recipe["models"]) + ("base" in recipe),
        "ns_per_parameter": _rounded(1e9 * seconds_of(ours) / entries),
        "cpu_ns_per_parameter": _rounded(1e9 * min(one.cpu_seconds for one in ours) / entries),
        "limit_runs_s": [_rounded(one.seconds) for one in limit],
        "ours_runs_s": [_rounded(one.seconds) for one in ours],
    }
    said = f"{entry['ns_per_parameter']:.3g} ns a parameter, {ratio:.2f} times the limit"
    return Measured(said, f"{target} times", ratio <= target, entry)


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


if __name__ == "__main__":
    main()
