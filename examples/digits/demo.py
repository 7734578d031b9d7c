"""Train five experts on handwritten digits, merge them by seven methods, and see what the merges can do."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from ..merging import Merge, Workshop, polyak
from ..report import Page, Results, Row, say, table, write
from . import networks
from .data import KINDS, PRETRAINING, TEST, TRAINING, VALIDATION, of_kind, plain

MERGES = (
    Merge("linear"),
    Merge("median"),
    Merge("model_stock"),
    Merge("task_arithmetic", scales=(0.1, 0.2, 0.3, 0.4)),
    Merge("ties", {"density": 0.2}, scales=(0.4, 0.7, 1.0, 1.5)),
    Merge("dare_ties", {"density": 0.5}, scales=(0.2, 0.4, 0.7, 1.0)),
    Merge("breadcrumbs", {"density": 0.2, "gamma": 0.1}, scales=(0.2, 0.4, 0.7, 1.0)),
)

INTRODUCTION = f"""
A network of 64, {", ".join(map(str, networks.HIDDEN))} and 10 units learns the ten digits from {PRETRAINING.stop}
images of scikit-learn's digits. Five copies of it go on training, each on one kind of image only, from the first
{TRAINING.stop:,} images of the file. Every model is a folder with a safetensors file; every merge is a recipe and one
run of `polyak merge`. Accuracies are on the last {TEST.stop - TEST.start} images of the file, which nothing was
trained or chosen on. Where a method has a scale, it is the one with the best average normalised accuracy on images
{VALIDATION.start:,} to {VALIDATION.stop:,}; every other setting was fixed in advance. Who wrote which image is not
recorded, so the same people may have written images on both sides of the split.
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
    results = _evaluate(workshop, merges)
    results = replace(results, seconds=time.monotonic() - began)
    write(results, _page(workshop, results), out)
    return results


def _train(workshop: Workshop, pretraining: int, finetuning: int) -> None:
    base = networks.pretrain(*plain(PRETRAINING), pretraining)
    networks.save(base, workshop.model("base"))
    for name in KINDS:
        networks.save(networks.finetune(base, *of_kind(name, TRAINING), finetuning), workshop.model(name))


def _evaluate(workshop: Workshop, merges: tuple[Merge, ...]) -> Results:
    own = {name: _accuracies(workshop.model(name), VALIDATION)[name] for name in KINDS}

    def score(folder: Path) -> float:
        return sum(found / own[name] for name, found in _accuracies(folder, VALIDATION).items())

    rows = [Row("base", "base", _accuracies(workshop.model("base"), TEST))]
    rows += [Row(name, "expert", _accuracies(workshop.model(name), TEST)) for name in KINDS]
    for merge in merges:
        say(f"merging by {merge.method}")
        chosen = workshop.choose_scale(merge, score)
        rows.append(Row(merge.method, "merge", _accuracies(workshop.merge(chosen), TEST), dict(chosen.settings)))
    return Results(tuple(KINDS), tuple(rows))


def _accuracies(folder: Path, part: slice) -> dict[str, float]:
    return {name: networks.accuracy(folder, *of_kind(name, part)) for name in KINDS}


def _page(workshop: Workshop, results: Results) -> Page:
    best = results.best.name
    merged = workshop.folder / "merged" / best
    recipes = {row.name: workshop.recipe(row.name).read_text(encoding="utf-8") for row in results.merges}
    outputs = {
        f"polyak plan recipes/{best}.yaml": polyak("plan", workshop.recipe(best)),
        f"polyak diff models/base merged/{best}": polyak("diff", workshop.model("base"), merged),
    }
    tasks = {name: kind.words for name, kind in KINDS.items()}
    return Page("Five experts on handwritten digits, merged", INTRODUCTION, tasks, recipes, outputs)


if __name__ == "__main__":
    main()
