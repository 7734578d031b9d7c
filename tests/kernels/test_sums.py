"""Sums, medians, elections and masks over tiles, at sizes around the blocks that the kernels work in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polyak.kernels.gram import (
    inner_products,
    inner_products_by_column,
    inner_products_by_row,
    mean_by_row,
    sum_by_column,
    sum_by_row,
)
from polyak.kernels.philox import stream
from polyak.kernels.sign_election import sign_votes
from polyak.kernels.sparsify import drop, magnitudes, shave, trim
from polyak.kernels.weighted_sums import add, middle, order, weighted_sum

SIZES = [1, 1023, 1024, 1025, 3001]


def tile(k: int, n: int) -> np.ndarray:
    return np.random.default_rng([k, n]).normal(size=(k, n)).astype(np.float32)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [1, 4])
def test_a_weighted_sum_is_scaled_and_ordered(k: int, n: int):
    stack, weight, out = tile(k, n), np.linspace(-0.5, 0.7, k, dtype=np.float32), np.empty(n, np.float32)
    weighted_sum(out, stack, weight, 0.3)
    wanted = weight[0] * stack[0]
    for model in range(1, k):
        wanted = wanted + weight[model] * stack[model]
    np.testing.assert_array_equal(out, wanted * np.float32(0.3))


@pytest.mark.parametrize("n", [1, 127, 128, 16_000, 33_000])
@pytest.mark.parametrize("k", range(1, 8))
def test_products_of_rows_taken_together_are_those_of_rows_taken_apart(k: int, n: int):
    stack = tile(k, n)
    together, apart = np.empty((k, k)), np.empty((1, k, k))
    inner_products(stack, together)
    inner_products_by_row(stack[:, None], apart)
    np.testing.assert_array_equal(together, apart[0])
    np.testing.assert_allclose(together, stack.astype(np.float64) @ stack.T.astype(np.float64), rtol=1e-9)


def test_bases_are_added():
    stack, base = tile(3, 50), tile(1, 50)[0]
    out = stack[0].copy()
    add(out, base)
    np.testing.assert_array_equal(out, stack[0] + base)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", range(1, 8))
def test_the_median_is_numpys(k: int, n: int):
    stack, out = tile(k, n), np.empty(n, np.float32)
    wanted = np.median(stack, axis=0)
    order(stack)
    middle(out, stack)
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


@pytest.mark.parametrize(("row", "start", "n"), [(7, 0, 21), (7, 3, 20), (7, 12, 1), (100, 30, 50), (1500, 90, 4000)])
def test_rows_and_columns_are_scaled_wherever_the_tile_starts(row: int, start: int, n: int):
    at = np.arange(start, start + n)
    stack, out = tile(2, n), np.empty(n, np.float32)
    by_row, by_column = np.arange(2.0 * (at[-1] // row + 1)).reshape(2, -1), np.arange(2.0 * row).reshape(2, -1)
    mean_by_row(out, stack, start, by_row[1], row)
    np.testing.assert_allclose(out, stack.mean(axis=0) * by_row[1][at // row], rtol=1e-6, atol=1e-6)
    sum_by_row(out, stack, start, by_row, row)
    np.testing.assert_allclose(out, (stack * by_row[:, at // row]).sum(axis=0), rtol=1e-6, atol=1e-4)
    sum_by_column(out, stack, start, by_column.astype(np.float32))
    np.testing.assert_allclose(out, (stack * by_column[:, at % row]).sum(axis=0), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 5), (1, 300), (9, 17_000)])
def test_inner_products_of_rows_and_columns_are_those_of_each_alone(shape: tuple[int, int]):
    stack, alone = tile(3, math.prod(shape)).reshape(3, *shape), np.empty((3, 3))
    rows, columns = np.empty((shape[0], 3, 3)), np.empty((3, 3, shape[1]))
    inner_products_by_row(stack, rows)
    inner_products_by_column(stack, columns)
    for row in range(shape[0]):
        inner_products(np.ascontiguousarray(stack[:, row]), alone)
        np.testing.assert_array_equal(rows[row], alone)
    wide = stack.astype(np.float64)
    np.testing.assert_allclose(columns, np.einsum("arc,brc->abc", wide, wide), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [*SIZES, 16 * 1024, 40_001])
def test_inner_products_are_accurate(n: int):
    stack, out = tile(3, n), np.empty((3, 3))
    inner_products(stack, out)
    for a in range(3):
        for b in range(3):
            terms = stack[a].astype(float) * stack[b]
            assert abs(out[a, b] - math.fsum(terms)) <= 1e-14 * math.fsum(np.abs(terms))


def test_votes_are_signs_of_weighted_sums():
    stack, weight = tile(3, 3001), np.array([0.5, -1, 0.25], np.float32)
    stack[:, 5:9] = 0
    total = weight[0] * stack[0] + weight[1] * stack[1] + weight[2] * stack[2]
    assert sign_votes(stack, weight) == np.sign(total).sum()


@pytest.mark.parametrize(("row", "start"), [(3001, 0), (4000, 700), (100, 0), (100, 30), (7, 6)])
def test_trim_and_shave_divide_a_tile_between_them(row: int, start: int):
    stack = np.rint(4 * tile(2, 3001)).astype(np.float32)
    index = np.arange(start, start + 3001)
    rows = index // row - start // row
    rng = np.random.default_rng(row)
    value = rng.integers(0, 5, (2, rows[-1] + 1)).astype(np.float32)
    last = start // row * row + np.arange(rows[-1] + 1) * row + rng.integers(-1, row, value.shape)
    inside = (np.abs(stack) > value[:, rows]) | ((np.abs(stack) == value[:, rows]) & (index <= last[:, rows]))
    for cut, wanted in ((trim, inside), (shave, ~inside)):
        found = stack.copy()
        cut(found, value, last, row, start)
        np.testing.assert_array_equal(found, np.where(wanted, stack, 0))


def test_drop_keeps_where_the_chance_is_below_and_rescales():
    stack, drawn = tile(3, 2500), stream(4, ("a", "b", "c"), "t", start=6)
    density, factor = np.array([0.3, 1, 0.8], np.float32), np.array([2, 1, 3], np.float32)
    found = stack.copy()
    drop(found, drawn, density, factor)
    kept = drawn.numbers(2500) < density[:, None]
    np.testing.assert_array_equal(found, np.where(kept, stack * factor[:, None], 0))
    assert kept[1].all()


def test_magnitudes_are_sums_in_double_precision():
    stack, found = tile(2, 3001), np.full(2, np.nan)
    magnitudes(stack, found)
    np.testing.assert_allclose(found, [math.fsum(np.abs(row).tolist()) for row in stack], rtol=1e-13)
