"""One scale for every plot: round ticks that include every value, and labelled axes."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyak.report import Dot, Point, Row, points_plot, rows_plot
from polyak.report.plots import WIDTH, Scale

NUMBERS = st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_ticks_are_round_few_and_around_all_values(values):
    scale = Scale(values, 100, 900)
    step = scale.ticks[1] - scale.ticks[0]
    assert 2 <= len(scale.ticks) <= 9
    assert scale.low <= min(values) + 1e-6 * step and scale.high >= max(values) - 1e-6 * step
    digits = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(digits - d) for d in (1, 2, 5, 10)) < 1e-3
    assert len({scale.text(tick) for tick in scale.ticks}) == len(scale.ticks) or max(map(abs, values)) >= 1e6


def test_positions_follow_the_scale_in_both_directions():
    up = Scale([0, 10], 300, 0)
    assert (up.at(0), up.at(10)) == (300, 0)
    assert Scale([], 0, 1).low == 0
    assert Scale([math.nan, 3.0], 0, 1).low <= 3.0


def parsed(svg):
    for attribute in ("text-anchor", "role", "fill", "r", "height", "class", "cy", "y", "stroke-width"):
        svg = __import__("re").sub(rf"\b{attribute}=([\w.-]+)(?=[\s/>])", rf"{attribute}='\1'", svg)
    return ElementTree.fromstring(svg)


def texts(svg):
    return [element.text for element in parsed(svg).iter("text")]


def test_rows_have_labels_intervals_a_reference_and_an_axis():
    rows = [Row("a < b", [Dot(0.5, 0.4, 0.6, words="0.5")]), Row("x" * 80, [Dot(-0.1)], bar=0.2)]
    svg = rows_plot(rows, "difference", name="Differences", reference=0.0, legend={"maths": 0})
    found = texts(svg)
    assert "difference" in found and "maths" in found and "a < b" in found
    assert any(text and text.endswith("…") for text in found)
    for element in parsed(svg).iter("circle"):
        assert 0 <= float(element.attrib["cx"]) <= WIDTH
    assert len(list(parsed(svg).iter("rect"))) == 1


def test_points_have_two_labelled_axes_and_a_line_of_steps():
    svg = points_plot([Point(0, 1.0), Point(5, 2.0)], ("candidate", "accuracy"), name="History", steps=[(0, 1), (5, 2)])
    assert {"candidate", "accuracy"} <= set(texts(svg))
    (line,) = parsed(svg).iter("polyline")
    assert len(line.attrib["points"].split()) == 3


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 7e8])
def test_a_single_value_has_a_scale(value):
    scale = Scale([value], 0, 100)
    assert scale.low <= value <= scale.high and scale.low < scale.high
