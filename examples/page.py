"""The report as one HTML file that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING

from polyak import report as plots

if TYPE_CHECKING:
    from .report import Results, Row


@dataclass(frozen=True)
class Page:
    """What the page says beside the numbers.

    Attributes:
        title: The heading.
        introduction: What was trained, on what, and how settings were chosen.
        tasks: What each task is, in words.
        recipes: The recipe of each merge.
        outputs: What commands print, by command.
    """

    title: str
    introduction: str
    tasks: Mapping[str, str]
    recipes: Mapping[str, str]
    outputs: Mapping[str, str]


def render(results: Results, page: Page) -> str:
    """The whole document."""
    tasks = "".join(f"<li><b>{escape(name)}</b>: {escape(words)}</li>" for name, words in page.tasks.items())
    parts = [
        f"<h1>{escape(page.title)}</h1><p>{_prose(page.introduction)}</p><ul>{tasks}</ul>",
        plots.figure("Accuracy relative to the experts", _plot(results), caption(results)),
        f"<div class=wide>{_table(results)}</div><p>{escape(_LEGEND)}</p>",
        *(f"<h2><code>{escape(name)}</code></h2><pre>{escape(text)}</pre>" for name, text in page.outputs.items()),
        "<h2>Recipes</h2>",
        *(f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
          for name, text in page.recipes.items()),
    ]  # fmt: skip
    return plots.document(page.title, "".join(parts))


_LEGEND = (
    "Rows named like a task are the experts. Normalised: each accuracy over that of the task's own expert, averaged "
    "over the tasks. Mean expert: what an expert reaches on average over all tasks."
)


def caption(results: Results) -> str:
    """The best merge and the merges that lose to the base, from the numbers."""
    best = results.best
    below = [row.name for row in results.merges if results.normalised(row) <= results.normalised(results.base)]
    behind = [task for task in results.tasks if results.relative(best, task) < 1]
    base, mean, expert, merge = (
        _percent(results.normalised(row)) for row in (results.base, results.mean_expert, results.best_expert, best)
    )
    return (
        f"Dots: accuracy on a task over that of its own expert; bars: their mean. The best merge is {best.name} with "
        f"{merge}; the base reaches {base}, the mean expert {mean}, the best expert, {results.best_expert.name}, "
        f"{expert}. It is the best of {len(results.merges)} on these same held-out examples, which flatters it a "
        f"little. It is behind the task's own expert on: {_listed(behind)}. Merges that do not beat the base: "
        f"{_listed(below)}."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _prose(text: str) -> str:
    """Words between backticks are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))


def _table(results: Results) -> str:
    names = ("model", *results.tasks, "mean", "normalised", "settings")
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    rows = "".join(_row(results, row) for row in results.shown())
    return f"<table><caption>Accuracy in per cent</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _row(results: Results, row: Row) -> str:
    starts = row in (results.experts[0], results.merges[0])
    names = " ".join(["best"] * (row == results.best) + ["first"] * starts)
    numbers = [*(row.scores[task] for task in results.tasks), fmean(row.scores.values())]
    cells = "".join(f"<td class=part style='--share: {100 * n:.1f}%'>{100 * n:.1f}</td>" for n in numbers)
    settings = ", ".join(f"{name} {value}" for name, value in row.settings.items())
    last = f"<td>{100 * results.normalised(row):.1f}</td><td>{escape(settings)}</td>"
    return f"<tr class='{names}'><td>{escape(row.name)}</td>{cells}{last}</tr>"


def _plot(results: Results) -> str:
    rows = [
        plots.Row(row.name, [_dot(results, row, task, i) for i, task in enumerate(results.tasks)],
                  100 * results.normalised(row))
        for row in results.shown()
    ]  # fmt: skip
    axis, colours = "accuracy, in % of the task's own expert", {task: i for i, task in enumerate(results.tasks)}
    return plots.rows_plot(rows, axis, name="Accuracy on each task over that of its own expert", legend=colours)


def _dot(results: Results, row: Row, task: str, colour: int) -> plots.Dot:
    share = results.relative(row, task)
    return plots.Dot(100 * share, colour=colour, words=f"{row.name} on {task}: {_percent(share)} of its expert")
