"""What base, experts and merges reach on each task: on the terminal, as JSON and as a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from . import page
from .page import Page

__all__ = ["Page", "Results", "Row", "say", "table", "write"]


@dataclass(frozen=True)
class Row:
    """One model's accuracies.

    Attributes:
        name: What it is called; an expert has the name of its task.
        kind: What it is.
        scores: Accuracy by task.
        settings: Of a merge, the settings that its recipe gives.
    """

    name: str
    kind: Literal["base", "expert", "mean", "merge"]
    scores: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """All rows, and what follows from them.

    Attributes:
        tasks: Their names; each is also the name of an expert.
        rows: The base, the experts, then the merges.
        seconds: How long everything took.
    """

    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    seconds: float = 0.0

    @property
    def base(self) -> Row:
        """What the experts were tuned from."""
        return self._of("base")[0]

    @property
    def experts(self) -> tuple[Row, ...]:
        """One for each task."""
        return self._of("expert")

    @property
    def merges(self) -> tuple[Row, ...]:
        """In the order in which they were made."""
        return self._of("merge")

    @property
    def mean_expert(self) -> Row:
        """What an expert reaches on average: its own task and the others'."""
        return Row("mean expert", "mean", {t: fmean(row.scores[t] for row in self.experts) for t in self.tasks})

    @property
    def best(self) -> Row:
        """The merge with the highest average normalised accuracy."""
        return max(self.merges, key=self.normalised)

    @property
    def best_expert(self) -> Row:
        """The expert with the highest average normalised accuracy."""
        return max(self.experts, key=self.normalised)

    def relative(self, row: Row, task: str) -> float:
        """Accuracy on a task over that of the task's own expert."""
        own = next(expert for expert in self.experts if expert.name == task)
        return row.scores[task] / own.scores[task]

    def normalised(self, row: Row) -> float:
        """Average normalised accuracy: the mean over tasks of `relative`."""
        return fmean(self.relative(row, task) for task in self.tasks)

    def shown(self) -> tuple[Row, ...]:
        """The rows of the table: those measured, and the mean expert before the merges."""
        return (self.base, *self.experts, self.mean_expert, *self.merges)

    def _of(self, kind: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.kind == kind)


def say(text: str) -> None:
    """Something that the user should know while it runs."""
    print(text, file=sys.stderr, flush=True)


def table(results: Results) -> str:
    """Accuracies in per cent, with their mean and the average normalised accuracy."""
    heads = ["", *results.tasks, "mean", "normalised"]
    lines = [heads, *(_cells(results, row) for row in results.shown())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _cells(results: Results, row: Row) -> list[str]:
    numbers = [*(row.scores[task] for task in results.tasks), fmean(row.scores.values()), results.normalised(row)]
    return [row.name, *(f"{100 * number:.1f}" for number in numbers)]


def write(results: Results, about: Page, out: Path) -> None:
    """Write `results.json` and `report.html` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(_data(results), indent=2) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page.render(results, about), encoding="utf-8")


def _data(results: Results) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "scores": dict(row.scores),
            "mean": fmean(row.scores.values()),
            "normalised": results.normalised(row),
            "settings": dict(row.settings),
        }
        for row in results.shown()
    ]
    return {"tasks": list(results.tasks), "best": results.best.name, "seconds": results.seconds, "rows": rows}
