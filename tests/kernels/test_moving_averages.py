"""Moving averages in one pass, against the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.kernels.moving_averages import fold, take

SIZES = [1, 700, 0, 513, 64]


def tensors(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(np.float32) for size in SIZES]


def table(*columns: list[np.ndarray]) -> np.ndarray:
    return np.array([[array.ctypes.data for array in row] for row in zip(*columns, strict=True)], np.int64)


def sizes() -> np.ndarray:
    return np.array(SIZES, np.int64)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("copies", [1, 3])
def test_copies_move_step_by_step(steps: int, copies: int):
    weights, kept = [tensors(i) for i in range(steps)], [tensors(10 + i) for i in range(copies)]
    amounts = np.random.default_rng(0).choice([0.0, 1.0, 0.25, 0.001], (steps, copies)).astype(np.float32)
    wanted = []
    for i, copy in enumerate(kept):
        moved = [array.astype(np.float64) for array in copy]
        for theta, amount in zip(weights, amounts[:, i].astype(np.float64), strict=True):
            moved = [c + amount * (t - c) for c, t in zip(moved, theta, strict=True)]
        wanted.append(moved)
    assert fold(table(*weights, *kept), sizes(), amounts, 0, sum(SIZES), True) == sum(SIZES)
    for ours, theirs in zip(kept, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_only_the_entries_between_start_and_stop_move():
    weights, kept = tensors(0), tensors(1)
    before = np.concatenate(kept)
    assert fold(table(weights, kept), sizes(), np.ones((1, 1), np.float32), 3, 800, False) == 800
    after, moved = np.concatenate(kept), np.concatenate(weights)
    np.testing.assert_array_equal(after, np.concatenate([before[:3], moved[3:800], before[800:]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("tensor", "entry", "stops"), [(0, 0, 0), (1, 600, 513), (3, 511, 1085), (4, 63, 1214)])
def test_it_stops_before_a_block_that_is_not_finite(bad: float, tensor: int, entry: int, stops: int):
    weights, kept = tensors(0), tensors(1)
    before = np.concatenate(kept)
    weights[tensor][entry] = bad
    amounts = np.full((1, 1), 0.5, np.float32)
    assert fold(table(weights, kept), sizes(), amounts, 0, sum(SIZES), True) == stops
    np.testing.assert_array_equal(np.concatenate(kept)[stops:], before[stops:])
    assert np.isfinite(np.concatenate(kept)).all()


def test_weights_are_taken_up_to_what_is_not_finite():
    weights, copy = tensors(0), [np.zeros_like(array) for array in tensors(0)]
    assert take(table(weights, copy), sizes(), 0, sum(SIZES), True) == sum(SIZES)
    np.testing.assert_array_equal(np.concatenate(copy), np.concatenate(weights))
    weights[3][5] = np.nan
    assert take(table(weights, copy), sizes(), 0, sum(SIZES), True) == 701
    assert take(table(weights, copy), sizes(), 0, sum(SIZES), False) == sum(SIZES)
    np.testing.assert_array_equal(np.concatenate(copy), np.concatenate(weights))
