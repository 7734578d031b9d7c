"""The report of a search: history, importance and front, in one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from ..search.results import Found, Tried
from .html import COLOURS, document, table

WIDTH, HEIGHT, LEFT, BOTTOM = 820, 260, 60, 230
STATES = {"complete": COLOURS[0], "pruned": COLOURS[4]}


def page(found: Found, tested: Mapping[str, float] | None = None) -> str:
    """The report as HTML.

    Args:
        found: By `search`.
        tested: What the best reaches on the test examples, by task.
    """
    parts = ["<h1>Search</h1>", _summary(found, tested or {})]
    for i, (name, direction) in enumerate(zip(found.objectives, found.directions, strict=True)):
        more = "more" if direction == "maximize" else "less"
        parts.append(_history(found, i, f"{name} ({more} is better) of each candidate, and the best so far"))
    if len(found.objectives) > 1:
        parts.append(_front(found))
    if found.importance:
        parts.append("<h2>Importance</h2>" + _importance(found.importance))
    parts.append("<h2>Candidates</h2>" + _candidates(found))
    about = json.dumps(dict(found.about), indent=2, ensure_ascii=False)
    parts.append(f"<h2>Provenance</h2><pre>{escape(about)}</pre>")
    return document("Search", "".join(parts))


def _summary(found: Found, tested: Mapping[str, float]) -> str:
    baselines = [one for one in found.tried if one.baseline and one.objectives]
    rows = [[one.baseline, *map(_number, one.objectives)] for one in baselines]
    rows.append([f"best: candidate {found.best.number}", *map(_number, found.best.objectives)])
    text = table(["candidate", *found.objectives], rows)
    text += table(["place", "value"], [[place, _shown(value)] for place, value in found.best.values.items()])
    if tested:
        text += table(["task", "best on test"], [[name, _number(value)] for name, value in tested.items()])
    return text


def _history(found: Found, index: int, caption: str) -> str:
    shown = [one for one in found.tried if one.objectives]
    values = [one.objectives[index] for one in shown]
    place = _Scale([float(one.number) for one in shown], values)
    dots = [place.dot(float(one.number), one.objectives[index], STATES[one.state], _label(one)) for one in shown]
    better = max if found.directions[index] == "maximize" else min
    corners: list[str] = []
    best: float | None = None
    for one in shown:
        if one.state == "complete":
            value = one.objectives[index]
            corners += [f"{place.x(one.number):.1f},{place.y(best):.1f}"] if best is not None else []
            best = value if best is None else better(best, value)
            corners.append(f"{place.x(one.number):.1f},{place.y(best):.1f}")
    line = f"<polyline points='{' '.join(corners)}' fill=none stroke='{COLOURS[1]}' stroke-width=2 />"
    return _figure(place.axes("candidate") + line + "".join(dots), caption)


def _front(found: Found) -> str:
    """The first two objectives against each other; with more, the table has the rest."""
    shown = [one for one in found.tried if one.state == "complete"]
    place = _Scale([one.objectives[0] for one in shown], [one.objectives[1] for one in shown])
    on_front = {one.number for one in found.front}
    dots = [
        place.dot(
            one.objectives[0], one.objectives[1], COLOURS[1] if one.number in on_front else COLOURS[0], _label(one)
        )
        for one in shown
    ]
    first, second = found.objectives[:2]
    caption = f"{second} against {first}; those that no other candidate surpasses are orange"
    rows = [[str(one.number), *map(_number, one.objectives)] for one in found.front]
    figure = _figure(place.axes(first) + "".join(dots), caption)
    return f"<h2>Front</h2>{figure}{table(['candidate', *found.objectives], rows)}"


class _Scale:
    """From numbers to places in a plot."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._x, self._y = _room(xs), _room(ys)

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - 20 - LEFT) * (value - self._x[0]) / (self._x[1] - self._x[0])

    def y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - 10) * (value - self._y[0]) / (self._y[1] - self._y[0])

    def dot(self, x: float, y: float, colour: str, label: str) -> str:
        at = f"cx='{self.x(x):.1f}' cy='{self.y(y):.1f}'"
        return f"<circle {at} r=4 fill='{colour}'><title>{escape(label)}</title></circle>"

    def axes(self, name: str) -> str:
        low, high = (f"<text x='{LEFT - 6}' y='{self.y(v) + 4:.1f}' text-anchor=end>{v:.4g}</text>" for v in self._y)
        ends = (f"<text x='{self.x(v):.1f}' y='{BOTTOM + 18}' text-anchor=middle>{v:.4g}</text>" for v in self._x)
        label = f"<text x='{(LEFT + WIDTH) / 2:.0f}' y='{BOTTOM + 18}' text-anchor=middle>{escape(name)}</text>"
        lines = f"<line x1='{LEFT}' x2='{WIDTH - 20}' y1='{BOTTOM}' y2='{BOTTOM}'/>"
        return f"{lines}<line x1='{LEFT}' x2='{LEFT}' y1='10' y2='{BOTTOM}'/>{low}{high}{''.join(ends)}{label}"


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _figure(inside: str, caption: str) -> str:
    label = escape(caption, quote=True)
    plot = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{label}'>{inside}</svg>"
    return f"<figure class=wide>{plot}<figcaption>{escape(caption)}</figcaption></figure>"


def _importance(shares: Mapping[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{escape(place)}</td><td class=part style='--share: {share:.1%}'>{share:.1%}</td></tr>"
        for place, share in shares.items()
    )
    return f"<div class=wide><table><tr><th>place</th><th>share</th></tr>{rows}</table></div>"


def _candidates(found: Found) -> str:
    head = ["candidate", "state", *found.objectives, *found.best.values, "merging", "scoring", "error"]
    rows: list[list[str]] = []
    for one in found.tried:
        reached = [_number(value) for value in one.objectives] or [""] * len(found.objectives)
        values = [_shown(one.values[place]) if place in one.values else "" for place in found.best.values]
        times = [f"{one.merging:.3g} s", f"{one.scoring:.3g} s"]
        name = f"{one.number} ({one.baseline})" if one.baseline else str(one.number)
        rows.append([name, one.state, *reached, *values, *times, one.error])
    return table(head, rows)


def _label(one: Tried) -> str:
    values = ", ".join(f"{place} {_shown(value)}" for place, value in one.values.items())
    return f"candidate {one.number}: {', '.join(map(_number, one.objectives))} ({values})"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
