"""Measure the first merge after a wheel is installed against later ones: `python benchmarks/first_merge.py WHEEL`.

The wheel is installed into a new environment without Numba, so that its library is what runs. With --cold, the first
merge of an environment that compiles its kernels is measured too: this Python's, with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from _checkpoints import SHAPES, family
from _machine import machine
from _process import Run, run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from building.check import installed

RECIPES = {"linear": {"method": "linear"}, "ties": {"method": "ties", "base": "base"}}


def main() -> None:
    """Parse the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="60M")
    parser.add_argument("--runs", type=int, default=5, help="later merges per recipe (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="measure compiling with this Python too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        family(folder, SHAPES[options.shape], experts=3)
        python = installed(options.wheel, folder / "environment")
        results = {name: measured(python, folder, name, options.runs) for name in RECIPES}
        if options.cold:
            for name in RECIPES:
                empty = {"NUMBA_CACHE_DIR": str(folder / f"cache-{name}"), "POLYAK_KERNEL_LEVEL": "none"}
                results[name]["compiling"] = seconds(merge(Path(sys.executable), folder, name, empty))
    print(json.dumps({"machine": machine(folder.parent), "shape": options.shape, "merges": results}, indent=2))


def measured(python: Path, folder: Path, name: str, runs: int) -> dict[str, object]:
    """The first merge by a recipe in a new environment, and the median of later ones."""
    isolated = ["-I"]  # what is installed, and not the checkout
    first = merge(python, folder, name, options=isolated)
    later = [merge(python, folder, name, options=isolated) for _ in range(runs)]
    middle = median(one.seconds for one in later)
    return {
        "first": seconds(first),
        "later": [seconds(one) for one in later],
        "first over median of later, wall": round(first.seconds / middle, 3),
        "first over median of later, CPU": round(first.cpu_seconds / median(one.cpu_seconds for one in later), 3),
    }


def merge(
    python: Path, folder: Path, name: str, variables: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Run:
    """Merge by a recipe, over the result of the last merge."""
    recipe = {**RECIPES[name], "models": [f"expert-{i}" for i in range(3)]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    command = [python, *options, "-m", "polyak", "merge", path, folder / "out", "--force"]
    return run(command, env=variables)


def seconds(measurement: Run) -> dict[str, float]:
    """Wall and CPU time of a process."""
    return {"wall": round(measurement.seconds, 3), "cpu": round(measurement.cpu_seconds, 3)}


if __name__ == "__main__":
    main()
