"""Order statistics of magnitudes against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.kernels.topk import (
    count_and_collect,
    count_and_collect_deltas,
    count_equal,
    count_equal_deltas,
    position_of_equal,
    put_deltas_into_bins,
    put_into_bins,
)
from polyak.kernels.topk_rows import LANES, cut_rows


def pattern(value: float) -> np.uint32:
    return np.float32(value).view(np.uint32)


@pytest.fixture
def row() -> np.ndarray:
    numbers = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    numbers[::7] = 0.5
    numbers[3::11] = -0.5
    return numbers


def bfloat16(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers cut to bfloat16: as stored, and as float32."""
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.8), (0.2, 0.5), (1.0, 1.01), (0.5, 0.5)])  # 0.5 is there many times
def test_what_lies_above_is_counted_and_what_lies_inside_collected(row: np.ndarray, low: float, high: float):
    inside, tally = np.empty(row.size + 1, np.uint32), np.zeros(2, np.int64)
    count_and_collect(row, pattern(low), pattern(high), inside, tally)
    magnitudes = np.abs(row)
    wanted = magnitudes[(magnitudes >= np.float32(low)) & (magnitudes <= np.float32(high))]
    assert tally.tolist() == [(magnitudes > np.float32(high)).sum(), wanted.size]
    np.testing.assert_array_equal(inside[: wanted.size].view(np.float32), wanted)


@pytest.mark.parametrize("wide", [False, True])
def test_differences_of_stored_numbers_are_collected_and_binned_as_they_would_be_in_float32(
    row: np.ndarray, wide: bool
):
    base = np.random.default_rng(1).normal(size=row.size).astype(np.float32)
    stored, ground, difference = row.view(np.uint32), base.view(np.uint32), row - base
    if not wide:
        (stored, one), (ground, other) = bfloat16(row), bfloat16(base)
        difference = one - other
    low, high, shift = pattern(0.25), pattern(0.5), np.uint32(12)
    collected = [np.zeros(row.size + 1, np.uint32) for _ in range(2)]
    binned = [(np.zeros(4096, np.int64), np.zeros((4096, 2), np.uint32)) for _ in range(2)]
    tallies = [np.zeros(2, np.int64) for _ in range(4)]
    count_and_collect(difference, low, high, collected[0], tallies[0])
    count_and_collect_deltas(stored, ground, wide, low, high, collected[1], tallies[1])
    put_into_bins(difference, low, high, shift, *binned[0], tallies[2])
    put_deltas_into_bins(stored, ground, wide, low, high, shift, *binned[1], tallies[3])
    assert tallies[0][1] > 100
    assert all(tally.tolist() == tallies[0].tolist() for tally in tallies)
    np.testing.assert_array_equal(collected[0][: tallies[0][1]], collected[1][: tallies[0][1]])
    for one, other in zip(*binned, strict=True):
        np.testing.assert_array_equal(one, other)
    often = np.abs(difference)[np.flatnonzero(difference)[5]]
    assert count_equal_deltas(stored, ground, wide, often.view(np.uint32)) == (np.abs(difference) == often).sum() > 0


def test_what_does_not_fit_is_only_counted(row: np.ndarray):
    inside, tally = np.full(500, 7, np.uint32), np.array([0, 1], np.int64)
    count_and_collect(row, pattern(0), pattern(10), inside[:400], tally)
    assert tally.tolist() == [0, 1 + row.size]
    assert (inside[400:] == 7).all()


def test_bins_count_leading_bits_and_know_their_ends(row: np.ndarray):
    bins, ends = np.zeros(4096, np.int64), np.tile(np.array([2**32 - 1, 0], np.uint32), (4096, 1))
    tally = np.zeros(2, np.int64)
    put_into_bins(row, pattern(0.25), pattern(1.5), np.uint32(19), bins, ends, tally)
    low, high = int(pattern(0.25)), int(pattern(1.5))
    bits = np.abs(row).view(np.uint32).astype(np.int64)
    assert tally.tolist() == [(bits > high).sum(), ((bits >= low) & (bits <= high)).sum()]
    bits = bits[(bits >= low) & (bits <= high)]
    place = (bits - low) >> 19
    np.testing.assert_array_equal(bins, np.bincount(place, minlength=4096))
    for bin in np.unique(place):
        assert ends[bin].tolist() == [bits[place == bin].min(), bits[place == bin].max()]


def test_equals_are_counted_and_found_by_magnitude(row: np.ndarray):
    places = np.flatnonzero(np.abs(row) == 0.5)
    assert count_equal(row, pattern(0.5)) == places.size
    assert [position_of_equal(row, pattern(0.5), nth) for nth in (1, 2, places.size)] == places[[0, 1, -1]].tolist()
    assert position_of_equal(row, pattern(0.5), places.size + 1) == -1


@pytest.mark.parametrize("counts", [(1, 2), (63, 62), (30,), (20, 40)])
@pytest.mark.parametrize("levels", [0, 1, 3, 1000])
@pytest.mark.parametrize("first_guess", [(np.inf, np.inf), (1.0, 0.01), (1.0, 0.5), (9.0, 0.01)])
def test_the_boundary_of_a_row_is_that_of_a_stable_sort_whatever_is_guessed(
    counts: tuple[int, ...], levels: int, first_guess: tuple[float, float]
):
    rows = np.random.default_rng(levels).integers(-levels, levels + 1, (2, 30, 64)).astype(np.float32)
    rows *= np.exp2(np.arange(30) % 3)[:, None].astype(np.float32)
    value, last = cuts_of(rows, np.array([counts, counts]).T, first_guess)
    order = np.argsort(-np.abs(rows), axis=2, kind="stable")
    for which, count in enumerate(counts):
        at = order[:, :, count - 1]
        np.testing.assert_array_equal(value[which], np.take_along_axis(np.abs(rows), at[:, :, None], axis=2)[:, :, 0])
        np.testing.assert_array_equal(last[which], 128 + 64 * np.arange(30) + at)


def test_the_boundary_is_found_among_numbers_with_nothing_between_them():
    steps = np.random.default_rng(0).integers(0, 3, (1, 20, 64)).astype(np.uint32)
    rows = (steps + np.float32(1).view(np.uint32)).view(np.float32)
    for count in (1, 20, 40, 63):
        value, last = cuts_of(rows, np.array([[count]]), (np.inf, np.inf))
        order = np.argsort(-rows, axis=2, kind="stable")[:, :, count - 1]
        np.testing.assert_array_equal(value[0], np.take_along_axis(rows, order[:, :, None], axis=2)[:, :, 0])
        np.testing.assert_array_equal(last[0], 128 + 64 * np.arange(20) + order)


def test_the_boundary_of_nothing_is_infinite_and_that_of_everything_below_zero():
    rows = np.ones((2, 3, 3000), np.float32)
    value, last = cuts_of(rows, np.array([[0, 2999], [3000, 1]]), (np.inf, np.inf))
    assert value[:, :, 0].tolist() == [[np.inf, 1.0], [-1.0, 1.0]]
    assert last[:, :, 2].tolist() == [[-1, 128 + 6000 + 2998], [-1, 128 + 6000]]


def cuts_of(rows: np.ndarray, counts: np.ndarray, first_guess: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    value, last = (np.empty((*counts.shape, rows.shape[1]), dtype) for dtype in (np.float32, np.int64))
    guess = np.tile(np.array(first_guess), (*counts.shape, 1))
    space = (np.empty(max(rows.shape[2] + 1, LANES), np.uint32) for _ in range(3))
    cut_rows(rows, np.ascontiguousarray(counts), 128, value, last, guess, *space)
    return value, last
