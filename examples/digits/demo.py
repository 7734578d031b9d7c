"""Train five experts on handwritten digits, merge them by seven methods, and see what the merges can do."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from ..comparing import Part, compare, describe
from ..merging import Merge, Workshop
from ..report import Results, say, table, write
from . import networks
from .data import KINDS, PARTS, of_kind, plain

MERGES = (
    Merge("linear"),
    Merge("median"),
    Merge("model_stock"),
    Merge("task_arithmetic", scales=(0.1, 0.2, 0.3, 0.4, 0.5)),
    Merge("ties", {"density": 0.2}, scales=(0.4, 0.7, 1.0, 1.4, 2.0)),
    Merge("dare_ties", {"density": 0.5}, scales=(0.2, 0.4, 0.7, 1.0, 1.4)),
    Merge("breadcrumbs", {"density": 0.2, "gamma": 0.1}, scales=(0.2, 0.4, 0.7, 1.0, 1.4)),
)

TITLE = "Five experts on handwritten digits, merged"
INTRODUCTION = f"""
A network of 64, {", ".join(map(str, networks.HIDDEN))} and 10 units learns the ten digits from the first
{PARTS["pretraining"].stop} of scikit-learn's 1,797 digits. Five copies of it go on training, each on one kind of
image only, from the first {PARTS["training"].stop:,}. Every model is a folder with a safetensors file; every merge is
a recipe and one run of `polyak merge`. Accuracies are on the last {PARTS["test"].stop - PARTS["test"].start} images,
which nothing was trained or chosen on. Where a method has a scale, it is the one with the best average normalised
accuracy on the {PARTS["validation"].stop - PARTS["validation"].start} images in between; every other setting was fixed
in advance. Who wrote which image is not recorded: the same people may have written images on both sides.
"""


def main() -> None:
    """Run the demo into `demo-out`."""
    results = run(Path("demo-out"))
    print(table(results))
    print(f"\n{results.seconds:.0f} s. With a plot and the recipes: demo-out/report.html")


def run(out: Path, *, pretraining: int = 40, finetuning: int = 6, merges: tuple[Merge, ...] = MERGES) -> Results:
    """Train, merge, evaluate and write the report.

    Args:
        out: Folder for everything; what an earlier run left there is removed.
        pretraining: Epochs of the base.
        finetuning: Epochs of each expert.
        merges: What to merge by.
    """
    began = time.monotonic()
    for name in ("models", "recipes", "merged"):
        shutil.rmtree(out / name, ignore_errors=True)
    workshop = Workshop(out, tuple(KINDS), {"seed": 7})
    say("training a base and five experts")
    _train(workshop, pretraining, finetuning)
    results = compare(workshop, merges, _accuracies, workers=2)
    results = replace(results, seconds=time.monotonic() - began)
    tasks = {name: kind.words for name, kind in KINDS.items()}
    write(results, describe(workshop, results, TITLE, INTRODUCTION, tasks), out)
    return results


def _train(workshop: Workshop, pretraining: int, finetuning: int) -> None:
    base = networks.pretrain(*plain("pretraining"), pretraining)
    networks.save(base, workshop.model("base"))
    for name in KINDS:
        networks.save(networks.finetune(base, *of_kind(name, "training"), finetuning), workshop.model(name))


def _accuracies(folder: Path, part: Part) -> dict[str, float]:
    return {name: networks.accuracy(folder, *of_kind(name, part)) for name in KINDS}


if __name__ == "__main__":
    main()
