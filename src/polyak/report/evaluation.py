"""Reports of evaluations and comparisons: tables, and dots with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..tasks import Comparison, Interval, Result, Scores, TaskComparison
from .html import COLOURS, document, table

LEFT, WIDTH, STEP = 220, 820, 24  # of the plot, in its own units
RIGHT = WIDTH - 30


@dataclass(frozen=True)
class Dot:
    """A line of a plot.

    Attributes:
        label: What stands beside it.
        at: Where the dot and its line are.
        colour: An index into `COLOURS`.
    """

    label: str
    at: Interval
    colour: int = 0


def evaluation_page(found: Mapping[str, Sequence[tuple[Scores, Interval]]]) -> str:
    """What models reached on tasks."""
    pairs = [(name, scores, at) for name, ones in found.items() for scores, at in ones]
    rows = [
        [name, one.task, one.metric, one.split, f"{at.value:.4f}", _ends(at, ".4f"), str(len(one.values))]
        for name, one, at in pairs
    ]
    parts = [
        "<h1>Evaluation</h1>",
        table(["model", "task", "metric", "split", "score", "95 % interval", "examples"], rows),
    ]
    for task, metric in dict.fromkeys((one.task, one.metric) for _, one, _ in pairs):
        dots = [Dot(name, at, i) for i, (name, _, at) in enumerate(p for p in pairs if p[1].task == task)]
        parts.append(_figure(f"{task}: {metric}, with 95 % intervals over examples", dots))
    digests = [[name, one.task, one.model_digest, one.task_digest] for name, one, _ in pairs]
    parts.append(f"<h2>Digests</h2>{table(['model', 'task', 'of the model', 'of the task'], digests)}")
    return document("Evaluation", "".join(parts))


def comparison_page(found: Comparison) -> str:
    """Differences from the first model, and shares of the experts."""
    first = found.models[0]
    title = f"{', '.join(found.models[1:])} against {first}"
    words = (
        f"Paired differences from {first} on the {found.split} split, with {found.level:.0%} intervals from "
        f"{found.resamples:,} resamples of the examples. An interval without 0 is a difference that the choice of "
        "examples hardly explains."
    )
    parts = [f"<h1>{escape(title)}</h1><p>{escape(words)}</p>"]
    dots = [
        Dot(f"{task.task}: {name}", result.difference, found.models.index(name))
        for task in found.tasks
        for name, result in task.results.items()
        if result.difference is not None
    ]
    parts.append(_figure(f"Score minus that of {first}", dots, zero=0.0))
    parts += [_task(task) for task in found.tasks]
    for group, results in found.groups.items():
        over = "the tasks' experts" if group == "held-in" else "the base"
        shares = [Dot(name, one, found.models.index(name)) for name, one in results.items()]
        parts.append(_figure(f"{group}: score over that of {over}, averaged over the tasks", shares, zero=1.0))
    parts += [f"<p>Note: {escape(note)}.</p>" for note in found.notes]
    return document(title, "".join(parts))


def _task(task: TaskComparison) -> str:
    marks = [f"{task.examples} examples", "more is better" if task.higher_is_better else "less is better"]
    marks += [
        f"{name} {value:.4f}" for name, value in (("expert", task.expert), ("base", task.base)) if value is not None
    ]
    head = [
        "model",
        task.metric,
        "interval",
        "difference",
        "interval",
        "wins",
        "losses",
        "p",
        "normalised",
        "recovered",
    ]
    rows = [_row(name, result) for name, result in task.results.items()]
    return f"<h2>{escape(task.task)}</h2><p>{escape(', '.join(marks))}</p>{table(head, rows)}"


def _row(name: str, result: Result) -> list[str]:
    moved = result.difference
    changed = [""] * 5
    if moved is not None and result.sign_test is not None:
        counts = [str(result.wins), str(result.losses), f"{result.sign_test:.3g}"]
        changed = [f"{moved.value:+.4f}", _ends(moved, "+.4f"), *counts]
    shares = [_share(result.normalised), _share(result.recovered)]
    return [name, f"{result.score.value:.4f}", _ends(result.score, ".4f"), *changed, *shares]


def _share(at: Interval | None) -> str:
    return "" if at is None else f"{at.value:.1%}"


def _ends(at: Interval, form: str) -> str:
    return "" if at.low is None or at.high is None else f"{at.low:{form}} to {at.high:{form}}"


def _figure(caption: str, dots: Sequence[Dot], zero: float | None = None) -> str:
    numbers = [n for dot in dots for n in (dot.at.value, dot.at.low, dot.at.high) if n is not None]
    numbers += [] if zero is None else [zero]
    low, high = min(numbers), max(numbers)
    room = 0.05 * (high - low) or 0.05
    scale = _Scale(low - room, high + room, STEP * (len(dots) + 1))
    parts = [scale.tick(low), scale.tick(high)] if zero is None or not low < zero < high else [
        scale.tick(low), scale.tick(zero), scale.tick(high)
    ]  # fmt: skip
    parts += [scale.line(i, dot) for i, dot in enumerate(dots)]
    size = f"viewBox='0 0 {WIDTH} {scale.height + STEP}'"
    plot = f"<svg {size} role=img aria-label='{escape(caption, quote=True)}'>{''.join(parts)}</svg>"
    return f"<figure class=wide>{plot}<figcaption>{escape(caption)}</figcaption></figure>"


@dataclass(frozen=True)
class _Scale:
    """From numbers to places in a plot."""

    low: float
    high: float
    height: int

    def x(self, number: float) -> float:
        return LEFT + (RIGHT - LEFT) * (number - self.low) / (self.high - self.low)

    def tick(self, number: float) -> str:
        x = self.x(number)
        return (
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='8' y2='{self.height - 8}'/>"
            f"<text x='{x:.1f}' y='{self.height + 8}' text-anchor=middle>{number:.4g}</text>"
        )

    def line(self, i: int, dot: Dot) -> str:
        y, colour, at = STEP * (i + 0.9), COLOURS[dot.colour % len(COLOURS)], dot.at
        bar = ""
        if at.low is not None and at.high is not None:
            ends = f"x1='{self.x(at.low):.1f}' x2='{self.x(at.high):.1f}' y1='{y:.1f}' y2='{y:.1f}'"
            bar = f"<line {ends} style='stroke: {colour}; stroke-width: 3'/>"
        words = f"{dot.label}: {at.value:.4g}" + (f" ({_ends(at, '.4g')})" if at.low is not None else "")
        circle = f"<circle cx='{self.x(at.value):.1f}' cy='{y:.1f}' r=5 fill='{colour}'>"
        label = f"<text x='{LEFT - 10}' y='{y + 4:.1f}' text-anchor=end>{escape(dot.label)}</text>"
        return f"{label}{bar}{circle}<title>{escape(words)}</title></circle>"
