"""Plots as SVG: one scale with round ticks, rows of dots with intervals, and points over two axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

from .html import COLOURS

WIDTH = 960  # of every plot, in its own units: the page scales it
_ROW, _RIGHT, _AXIS, _LEGEND = 24, 24, 44, 24  # heights of a row, the axis and the legend; the margin at the right
_CHARACTER = 6.8  # mean width of a character of 12 px
_LABEL = 52  # characters of a label that are shown


@dataclass(frozen=True)
class Dot:
    """A value in a row of a plot.

    Attributes:
        value: Its value.
        low: Lower end of its interval, if it has one.
        high: Upper end.
        colour: An index into the palette.
        words: Its tooltip.
    """

    value: float
    low: float | None = None
    high: float | None = None
    colour: int = 0
    words: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a plot: a label, its dots, and a bar from zero if it has a `bar`."""

    label: str
    dots: Sequence[Dot]
    bar: float | None = None


@dataclass(frozen=True)
class Point:
    """A point over two axes."""

    x: float
    y: float
    colour: int = 0
    words: str = ""


class Scale:
    """A linear scale from numbers to positions, with ticks at round numbers.

    Args:
        values: Values that must lie within the scale.
        start: Position of its lower end.
        stop: Position of its upper end; smaller than `start` for a vertical axis.
        ticks: About how many ticks there are.
    """

    def __init__(self, values: Iterable[float], start: float, stop: float, ticks: int = 6) -> None:
        numbers = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(numbers), max(numbers)
        if low == high:
            low, high = low - (abs(low) or 1) / 20, high + (abs(high) or 1) / 20
        step = _round_step((high - low) / ticks)
        self._start, self._stop = start, stop
        self.low, self.high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        self.ticks = [self.low + i * step for i in range(round((self.high - self.low) / step) + 1)]
        self._digits = max(0, -math.floor(math.log10(step) + 1e-9))

    def at(self, value: float) -> float:
        """The position of a number."""
        return self._start + (self._stop - self._start) * (value - self.low) / (self.high - self.low)

    def text(self, value: float) -> str:
        """A tick's number, with the digits that tell it from its neighbours."""
        return f"{value:.4g}" if abs(value) >= 1e6 else f"{value + 0.0:.{self._digits}f}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def rows_plot(
    rows: Sequence[Row],
    axis: str,
    *,
    name: str,
    reference: float | None = None,
    legend: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """Rows of dots with intervals over one horizontal axis.

    Args:
        rows: From top to bottom.
        axis: The axis' label.
        name: Description of the plot for readers who cannot see it.
        reference: A value to mark and to include.
        legend: Colours by their meaning.
    """
    left = 16 + _CHARACTER * min(_LABEL, max(len(row.label) for row in rows))
    top = _LEGEND if legend else 8
    bottom = top + _ROW * len(rows) + 4
    numbers = [n for row in rows for dot in row.dots for n in (dot.value, dot.low, dot.high) if n is not None]
    numbers += [n for row in rows if row.bar is not None for n in (0.0, row.bar)]
    scale = Scale([*numbers, *([] if reference is None else [reference])], left, WIDTH - _RIGHT)
    parts = [_horizontal(scale, axis, top, bottom)]
    if reference is not None:
        x = f"{scale.at(reference):.1f}"
        parts.append(f"<line x1='{x}' x2='{x}' y1='{top}' y2='{bottom}' style='stroke: var(--soft)'/>")
    parts += [_row(row, scale, left, top + _ROW * (i + 0.5)) for i, row in enumerate(rows)]
    parts.append(_legend(legend, left))
    return _svg("".join(parts), bottom + _AXIS, name)


def points_plot(
    points: Sequence[Point], axes: tuple[str, str], *, name: str, steps: Sequence[tuple[float, float]] = (),
    legend: Mapping[str, int] = MappingProxyType({}),
) -> str:  # fmt: skip
    """Points over two axes, and a line of steps through `steps`.

    Args:
        points: The points.
        axes: Labels of the horizontal and the vertical axis.
        name: Description of the plot for readers who cannot see it.
        steps: Corners of a line that moves horizontally, then vertically.
        legend: Colours by their meaning; the line has colour 1.
    """
    top, bottom = _LEGEND if legend else 12, 300
    y = Scale([*(p.y for p in points), *(y for _, y in steps)], bottom, top)
    left = 34 + _CHARACTER * max(len(y.text(tick)) for tick in y.ticks)
    x = Scale([*(p.x for p in points), *(x for x, _ in steps)], left, WIDTH - _RIGHT)
    parts = [_horizontal(x, axes[0], top, bottom), _vertical(y, axes[1], left)]
    parts += [_steps(steps, x, y)] if steps else []
    parts += [_circle(x.at(p.x), y.at(p.y), p.colour, p.words, 4) for p in points]
    parts.append(_legend(legend, left))
    return _svg("".join(parts), bottom + _AXIS, name)


def _horizontal(scale: Scale, label: str, top: float, bottom: float) -> str:
    ticks = "".join(
        f"<line x1='{scale.at(tick):.1f}' x2='{scale.at(tick):.1f}' y1='{top}' y2='{bottom}'/>"
        f"<text x='{scale.at(tick):.1f}' y='{bottom + 16}' text-anchor=middle>{scale.text(tick)}</text>"
        for tick in scale.ticks
    )
    middle = (scale.at(scale.low) + scale.at(scale.high)) / 2
    return f"{ticks}<text class=label x='{middle:.1f}' y='{bottom + 36}' text-anchor=middle>{escape(label)}</text>"


def _vertical(scale: Scale, label: str, left: float) -> str:
    ticks = "".join(
        f"<line x1='{left:.1f}' x2='{WIDTH - _RIGHT}' y1='{scale.at(tick):.1f}' y2='{scale.at(tick):.1f}'/>"
        f"<text x='{left - 6:.1f}' y='{scale.at(tick) + 4:.1f}' text-anchor=end>{scale.text(tick)}</text>"
        for tick in scale.ticks
    )
    middle = (scale.at(scale.low) + scale.at(scale.high)) / 2
    turned = f"transform='rotate(-90 14 {middle:.1f})'"
    return f"{ticks}<text class=label x='14' y='{middle:.1f}' text-anchor=middle {turned}>{escape(label)}</text>"


def _row(row: Row, scale: Scale, left: float, y: float) -> str:
    shown = row.label if len(row.label) <= _LABEL else f"{row.label[: _LABEL - 1]}…"
    parts = [
        f"<text x='{left - 10:.1f}' y='{y + 4:.1f}' text-anchor=end>{escape(shown)}"
        f"<title>{escape(row.label)}</title></text>"
    ]
    if row.bar is not None:
        begin, end = sorted((scale.at(0), scale.at(row.bar)))
        size = f"x='{begin:.1f}' width='{end - begin:.1f}' y='{y - 8:.1f}' height=16"
        parts.append(f"<rect {size} style='fill: var(--fill)'><title>{row.bar:.4g}</title></rect>")
    for dot in row.dots:
        if dot.low is not None and dot.high is not None:
            ends = f"x1='{scale.at(dot.low):.1f}' x2='{scale.at(dot.high):.1f}' y1='{y:.1f}' y2='{y:.1f}'"
            parts.append(f"<line {ends} style='stroke: {_colour(dot.colour)}; stroke-width: 3'/>")
        parts.append(_circle(scale.at(dot.value), y, dot.colour, dot.words, 5))
    return "".join(parts)


def _steps(corners: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    places: list[str] = []
    for i, (at, value) in enumerate(corners):
        if i:
            places.append(f"{x.at(at):.1f},{y.at(corners[i - 1][1]):.1f}")
        places.append(f"{x.at(at):.1f},{y.at(value):.1f}")
    return f"<polyline points='{' '.join(places)}' fill=none stroke='{_colour(1)}' stroke-width=2 />"


def _circle(x: float, y: float, colour: int, words: str, radius: int) -> str:
    at = f"cx='{x:.1f}' cy='{y:.1f}' r={radius}"
    return f"<circle {at} fill='{_colour(colour)}'><title>{escape(words)}</title></circle>"


def _legend(colours: Mapping[str, int], left: float) -> str:
    parts: list[str] = []
    x = left
    for name, colour in colours.items():
        parts.append(f"<circle cx='{x + 5:.1f}' cy=10 r=5 fill='{_colour(colour)}'/>")
        parts.append(f"<text x='{x + 14:.1f}' y=14>{escape(name)}</text>")
        x += 34 + _CHARACTER * len(name)
    return "".join(parts)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _svg(inside: str, height: float, name: str) -> str:
    label = escape(name, quote=True)
    return f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role=img aria-label='{label}'>{inside}</svg>"
