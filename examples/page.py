"""The report as one HTML file that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING

from polyak.report.html import COLOURS, document

if TYPE_CHECKING:
    from .report import Results, Row

LEFT, WIDTH, STEP = 150, 720, 26  # of the plot, in its own units
RIGHT = WIDTH - 20


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
        f"<figure class=wide>{_plot(results)}<figcaption>{escape(caption(results))}</figcaption></figure>",
        f"<h2>Accuracy, in per cent</h2><div class=wide>{_table(results)}</div><p>{escape(_LEGEND)}</p>",
        *(f"<h2><code>{escape(name)}</code></h2><pre>{escape(text)}</pre>" for name, text in page.outputs.items()),
        "<h2>Recipes</h2>",
        *(f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
          for name, text in page.recipes.items()),
    ]  # fmt: skip
    return document(page.title, "".join(parts))


_LEGEND = (
    "Rows named like a task are the experts. Normalised: each accuracy over that of the task's own expert, averaged "
    "over the tasks. Mean expert: what an expert reaches on average over all tasks."
)


def caption(results: Results) -> str:
    """What wins and what loses, from the numbers."""
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
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("", *results.tasks, "mean", "normalised", "settings"))
    return f"<table><tr>{heads}</tr>{''.join(_row(results, row) for row in results.shown())}</table>"


def _row(results: Results, row: Row) -> str:
    starts = row in (results.experts[0], results.merges[0])
    names = " ".join(["best"] * (row == results.best) + ["first"] * starts)
    numbers = [*(row.scores[task] for task in results.tasks), fmean(row.scores.values())]
    cells = "".join(f"<td class=part style='--share: {100 * n:.1f}%'>{100 * n:.1f}</td>" for n in numbers)
    settings = ", ".join(f"{name} {value}" for name, value in row.settings.items())
    last = f"<td>{100 * results.normalised(row):.1f}</td><td>{escape(settings)}</td>"
    return f"<tr class='{names}'><td>{escape(row.name)}</td>{cells}{last}</tr>"


def _plot(results: Results) -> str:
    rows = results.shown()
    most = max(1.0, *(results.relative(row, task) for row in rows for task in results.tasks))
    height = STEP * (len(rows) + 2)
    parts = [_tick(share / 4, most, height) for share in range(int(4 * most) + 1)]
    parts += [_line(results, row, i, most) for i, row in enumerate(rows)]
    parts += [_key(task, i) for i, task in enumerate(results.tasks)]
    named = "Accuracy on each task over that of its own expert"
    return f"<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label='{named}'>{''.join(parts)}</svg>"


def _x(share: float, most: float) -> float:
    return LEFT + (RIGHT - LEFT) * share / most


def _tick(share: float, most: float, height: int) -> str:
    x, bottom = _x(share, most), height - STEP
    return (
        f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{STEP}' y2='{bottom}'/>"
        f"<text x='{x:.1f}' y='{bottom + 16}' text-anchor=middle>{100 * share:.0f} %</text>"
    )


def _line(results: Results, row: Row, i: int, most: float) -> str:
    y = STEP * (i + 1.5)
    mean = _x(results.normalised(row), most)
    dots = "".join(_dot(results, row, task, j, y, most) for j, task in enumerate(results.tasks))
    return (
        f"<text x='{LEFT - 10}' y='{y + 4}' text-anchor=end>{escape(row.name)}</text>"
        f"<rect x='{LEFT}' y='{y - 8}' width='{mean - LEFT:.1f}' height=16 style='fill: var(--fill)'>"
        f"<title>normalised: {_percent(results.normalised(row))}</title></rect>{dots}"
    )


def _dot(results: Results, row: Row, task: str, j: int, y: float, most: float) -> str:
    share = results.relative(row, task)
    return (
        f"<circle cx='{_x(share, most):.1f}' cy='{y}' r=4.5 fill='{COLOURS[j % len(COLOURS)]}'>"
        f"<title>{escape(row.name)} on {escape(task)}: {_percent(share)} of its expert</title></circle>"
    )


def _key(task: str, i: int) -> str:
    x = LEFT + i * (RIGHT - LEFT) / len(COLOURS)
    dot = f"<circle cx='{x:.0f}' cy=14 r=4.5 fill='{COLOURS[i % len(COLOURS)]}'/>"
    return f"{dot}<text x='{x + 9:.0f}' y=18>{escape(task)}</text>"
