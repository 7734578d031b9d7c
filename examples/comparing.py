"""Experts against their merges: scales chosen on validation examples, accuracies measured on test examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeAlias

from .merging import Merge, Workshop, polyak
from .report import Page, Results, Row, say

Part: TypeAlias = Literal["validation", "test"]
Accuracies: TypeAlias = Callable[[Path, Part], Mapping[str, float]]  # of the model in a folder, by task


def compare(workshop: Workshop, merges: Sequence[Merge], accuracies: Accuracies, workers: int = 1) -> Results:
    """Merge the experts in every way and measure base, experts and merges.

    Args:
        workshop: Where base and experts lie; each expert has the name of its task.
        merges: The ways.
        accuracies: How to measure a model.
        workers: How many merges to work on at a time.
    """
    own = {name: accuracies(workshop.model(name), "validation")[name] for name in workshop.experts}

    def score(folder: Path) -> float:
        return sum(found / own[name] for name, found in accuracies(folder, "validation").items())

    def merged(merge: Merge) -> Row:
        return Row(merge.method, "merge", accuracies(workshop.merge(merge), "test"), dict(merge.settings))

    rows = [Row("base", "base", accuracies(workshop.model("base"), "test"))]
    rows += [Row(name, "expert", accuracies(workshop.model(name), "test")) for name in workshop.experts]
    say("choosing scales")
    chosen = [workshop.choose_scale(merge, score) for merge in merges]
    say(f"merging by {', '.join(merge.method for merge in chosen)}")
    with ThreadPoolExecutor(workers) as pool:
        rows += pool.map(merged, chosen)
    return Results(tuple(workshop.experts), tuple(rows))


def describe(workshop: Workshop, results: Results, title: str, introduction: str, tasks: Mapping[str, str]) -> Page:
    """The page: every recipe, and what `polyak plan` and `polyak diff` say of the best merge."""
    best = results.best.name
    outputs = {
        f"polyak plan recipes/{best}.yaml": polyak("plan", workshop.recipe(best)),
        f"polyak diff models/base merged/{best}": polyak("diff", workshop.model("base"), workshop.merged(best)),
    }
    recipes = {row.name: workshop.recipe(row.name).read_text(encoding="utf-8") for row in results.merges}
    return Page(title, introduction, tasks, recipes, outputs)
