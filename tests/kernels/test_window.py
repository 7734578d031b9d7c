"""Dropping by rank without sorting keeps what a sort says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.kernels.philox import uniform
from polyak.kernels.rank_bins import keep_by_rank, room_for
from polyak.kernels.rank_drop import thin

KEY = np.array([7, 11], np.uint32)


def kept_by_a_sort(rows: Any, start: int, middle: float, half: float) -> Any:
    drawn = np.empty(rows.size, np.float32)
    uniform(drawn, KEY, start)
    n, (m, h) = rows.shape[1], np.float32((middle, half))
    place = np.argsort(np.argsort(-np.abs(rows), axis=1, kind="stable"), axis=1, kind="stable")
    keep = (m - h) + np.float32(2) * h * ((n - 1 - place).astype(np.float32) / np.float32(max(n - 1, 1)))
    return drawn.reshape(rows.shape) < keep


def rows_of(kind: str, shape: tuple[int, int]) -> Any:
    rng = np.random.default_rng(len(kind))
    numbers = rng.normal(0, 1e-3, shape)
    match kind:
        case "mostly zeros":
            numbers *= rng.random(shape) < 0.2
        case "few values":
            numbers = rng.integers(-4, 5, shape)
        case "one giant":  # all others fall into the last bin
            numbers[:, shape[1] // 2] = 1e30
        case "subnormal":
            numbers = rng.integers(-300, 300, shape) * 1.4e-45
        case _:
            pass
    return numbers.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "mostly zeros", "few values", "one giant", "subnormal"])
@pytest.mark.parametrize("shape", [(5, 1), (3, 2), (7, 255), (4, 1024), (2, 5001), (1, 70_000)])
@pytest.mark.parametrize("window", [(0.7, 0.07), (0.5, 0.5), (0.25, 0.25), (0.4, 0.0)])
def test_the_kept_are_those_of_a_sort_and_are_multiplied(kind: str, shape: tuple[int, int], window: Any):
    rows, start = rows_of(kind, shape), 3
    middle, half = window if shape[1] > 1 else (window[0], 0.0)
    kept, found = kept_by_a_sort(rows, start, middle, half), rows.copy()
    thin(found, KEY, start, window, 1.5, inverse=False)
    np.testing.assert_array_equal(found, np.where(kept, rows, 0) * np.float32(1.5))


def test_a_row_with_a_giant_is_left_to_a_sort_and_the_rows_before_it_are_done():
    rows = np.concatenate([rows_of("normal", (1, 8192)), rows_of("one giant", (1, 8192))])
    room, window = room_for(8192), np.float32((0.5, 0.5))
    found = rows.copy()
    assert keep_by_rank(found, KEY, 0, *window, np.float32(1), *room) == 1
    np.testing.assert_array_equal(found[1], rows[1])
    assert (found[0] == 0).any()
