"""Order statistics of magnitudes against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.kernels.select import count_and_collect, count_equal, last_kept, position_of_equal, put_into_bins


def pattern(value: float) -> np.uint32:
    return np.float32(value).view(np.uint32)


@pytest.fixture
def row() -> np.ndarray:
    numbers = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    numbers[::7] = 0.5
    numbers[3::11] = -0.5
    return numbers


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.8), (0.2, 0.5)])  # 0.5 is there many times
def test_what_lies_above_is_counted_and_what_lies_inside_collected(row: np.ndarray, low: float, high: float):
    inside = np.empty(row.size, np.uint32)
    above, used = count_and_collect(row, pattern(low), pattern(high), inside, 0)
    magnitudes = np.abs(row)
    wanted = magnitudes[(magnitudes >= np.float32(low)) & (magnitudes <= np.float32(high))]
    assert above == (magnitudes > np.float32(high)).sum()
    np.testing.assert_array_equal(inside[:used].view(np.float32), wanted)


def test_what_does_not_fit_is_only_counted(row: np.ndarray):
    inside = np.zeros(5, np.uint32)
    above, used = count_and_collect(row, pattern(0), pattern(10), inside[:3], 1)
    assert (above, used) == (0, 1 + row.size)
    np.testing.assert_array_equal(inside.view(np.float32), [0, abs(row[0]), abs(row[1]), 0, 0])


def test_bins_count_leading_bits_and_know_their_ends(row: np.ndarray):
    bins, ends = np.zeros(4096, np.int64), np.tile(np.array([2**32 - 1, 0], np.uint32), (4096, 1))
    put_into_bins(row, pattern(0.25), pattern(1.5), np.uint32(19), bins, ends)
    low, high = int(pattern(0.25)), int(pattern(1.5))
    bits = np.abs(row).view(np.uint32).astype(np.int64)
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


@pytest.mark.parametrize("count", [1, 2, 30, 63, 64])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_the_last_survivor_among_equals_is_that_of_a_stable_sort(count: int, levels: int):
    rows = np.random.default_rng(levels).integers(-levels, levels + 1, (5, 64)).astype(np.float32)
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")
    at = order[:, count - 1]
    value, last = np.abs(rows)[np.arange(5), at], np.empty(5, np.int64)
    last_kept(rows, value, count, 128, last)
    np.testing.assert_array_equal(last, 128 + 64 * np.arange(5) + at)
