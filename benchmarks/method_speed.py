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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from _bench import FILE, HERE, Bench, Recipe, recipe_of
from _machine import machine
from _mergekit import Mergekit, measure
from _mergekit import recipe_for as mergekit_recipe
from _options import parsed, parser_for
from _process import Failed, seconds_of
from _results import NONE, Line, Measured, Results, mergekit_file, refresh

SHAPE, SMALL = "500M", "60M"
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
    with tempfile.TemporaryDirectory(dir=options.work, prefix="run-") as scratch:
        bench = Bench(options.work.resolve(), Path(scratch).resolve(), options.runs, options.shape, SMALL)
        try:
            failed = _measure(options, bench)
        except Failed as error:
            sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"{failed} could not be measured")


def _measure(options: argparse.Namespace, bench: Bench) -> int:
    wanted = re.compile(options.only, re.IGNORECASE).search
    asked = [work for work in works() if wanted(work.name)]
    if options.mergekit:
        theirs = ((_name(work, bench), recipe) for work in asked if (recipe := _theirs(work, bench)))
        failed = measure(Mergekit(options.mergekit), bench, mergekit_file(options.json), machine(bench.work), theirs)
        refresh(options.json)
        return failed
    results = Results(options.json, machine(bench.work), afresh=not (options.only or options.resume))
    results.ran(f"python benchmarks/method_speed.py --shape {options.shape} --runs {options.runs}")
    lines = (Line("rows", _name(work, bench), partial(_measured, bench, work)) for work in asked)
    return results.measure(line for line in lines if not (options.resume and results.has(line)))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_for("method_speed.py", __doc__, runs=3, shape=SHAPE)
    parser.add_argument("--resume", action="store_true", help="keep what an interrupted run measured, do the rest")
    parser.add_argument("--mergekit", type=Path, metavar="PYTHON_BIN", help="measure that interpreter's mergekit")
    parser.add_argument("--json", type=Path, help="file of results (default: methods.json here, if 500M)")
    options = parsed(parser, arguments)
    options.json = options.json or (HERE if options.shape == SHAPE else options.work) / "methods.json"
    return options


def works() -> Iterator[Work]:
    """Every method that needs no data, as it is by default, and some variants."""
    from polyak import methods

    methods.load_all()
    for name, method in sorted(methods.registry.items()):
        yield from [] if method.statistics else [Work(name)]
        yield from (variant for variant in VARIANTS if variant.method == name)


def _shape(work: Work, bench: Bench) -> str:
    """Decompositions of large matrices take minutes: `spectral_speed.py` compares those."""
    return bench.small if _target(work) is None else bench.shape


def _target(work: Work) -> int | None:
    from polyak.methods import Law, resolve

    laws = resolve(work.method).laws
    return STREAMING if Law.ELEMENTWISE in laws else RANKING if Law.ROWS in laws else None


def _name(work: Work, bench: Bench) -> str:
    return f"{work.name}, {_shape(work, bench)}"


def recipe_for(work: Work, bench: Bench) -> Recipe:
    """Three models, or as many as the method takes, and the base where it looks at one."""
    return recipe_of(work.method, *_inputs(work, bench), **work.settings)


def _inputs(work: Work, bench: Bench) -> tuple[list[Path], Path | None]:
    from polyak.methods import resolve

    method = resolve(work.method)
    base, *experts = bench.family(_shape(work, bench))
    return experts[: method.models[1] or MODELS], base if method.uses_base else None


def _theirs(work: Work, bench: Bench) -> Recipe | None:
    """mergekit's recipe for a method with our defaults, as far as it has such settings."""
    from polyak.methods import resolve
    from polyak.recipe.mergekit.methods import TRANSLATIONS

    if work.method not in TRANSLATIONS or work.settings:
        return None
    declared = resolve(work.method).settings
    said = {name: setting.default for name, setting in declared.items()}
    parameters = {
        one.name: value
        for one in TRANSLATIONS[work.method].parameters
        if one.setting in said and one.setting != "weight" and (value := _spoken(one, said[one.setting])) is not None
    }
    return mergekit_recipe({"merge_method": work.method, "parameters": parameters}, *_inputs(work, bench))


def _spoken(parameter: Any, value: object) -> object:
    """What mergekit says for one of polyak's values; None where it cannot."""
    from polyak.errors import PolyakError
    from polyak.reading.strict import Place

    for said in (value, True, False):
        with suppress(PolyakError):
            if parameter.read(said, Place("benchmark", "")) == value:
                return said
    return None


def _measured(bench: Bench, work: Work) -> Measured:
    recipe, target = recipe_for(work, bench), _target(work)
    limit, ours = bench.compare(recipe)
    ratio = seconds_of(ours) / seconds_of(limit)
    entries = (Path(recipe["models"][0]) / FILE).stat().st_size / 2  # bfloat16
    entry = {
        "limit_s": _rounded(seconds_of(limit)),
        "ours_s": _rounded(seconds_of(ours)),
        "ratio": _rounded(ratio),
        "target": NONE if target is None else str(target),
        "inputs": len(recipe["models"]) + ("base" in recipe),
        "ns_per_parameter": _rounded(1e9 * seconds_of(ours) / entries),
        "cpu_ns_per_parameter": _rounded(1e9 * min(one.cpu_seconds for one in ours) / entries),
        "parameters": int(entries),
        "limit_runs_s": [_rounded(one.seconds) for one in limit],
        "ours_runs_s": [_rounded(one.seconds) for one in ours],
    }
    said = f"{entry['ns_per_parameter']:.3g} ns a parameter, {ratio:.2f} times the limit"
    return Measured(said, NONE if target is None else f"{target} times", target is None or ratio <= target, entry)


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


if __name__ == "__main__":
    main()
