"""Breadcrumbs: which ranks survive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.methods import load_all, resolve

load_all()


def breadcrumbs(deltas: Any, **settings: Any) -> np.ndarray:
    stack = np.array(deltas, np.float64)
    return resolve("breadcrumbs")(stack, np.zeros_like(stack[0]), **settings)


def test_the_largest_go_and_the_next_largest_stay():
    ladder = np.arange(1.0, 11)
    found = breadcrumbs([ladder], gamma=0.2, density=0.3)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 0, 6, 7, 8, 0, 0])


def test_rows_compete_apart_and_tensors_as_a_whole():
    delta = [[[1, 2, 3, 4], [10, 20, 30, 40]]]
    by_row = breadcrumbs(delta, gamma=0.25, density=0.25)
    np.testing.assert_array_equal(by_row, [[0, 0, 3, 0], [0, 0, 30, 0]])
    by_tensor = breadcrumbs(delta, gamma=0.25, density=0.25, granularity="tensor")
    np.testing.assert_array_equal(by_tensor, [[0, 0, 0, 0], [10, 20, 0, 0]])


def test_among_equals_the_first_count_as_the_largest():
    np.testing.assert_array_equal(breadcrumbs([[1, -1, 1, 1]], gamma=0.25, density=0.5), [0, -1, 1, 0])


@pytest.mark.parametrize("entries", [1, 2, 3, 4])
def test_a_tiny_row_keeps_one_entry(entries: int):
    found = breadcrumbs([np.arange(1.0, entries + 1)], gamma=0.1, density=0.2)
    assert np.count_nonzero(found) == 1


def test_a_density_of_one_keeps_the_outliers_too():
    np.testing.assert_array_equal(breadcrumbs([[1, 2, 3, 4]], gamma=0.5, density=1), [1, 2, 3, 4])


def test_fewer_are_outliers_where_both_shares_do_not_fit():
    np.testing.assert_array_equal(breadcrumbs([[1, 2, 3, 4]], gamma=0.5, density=0.75), [1, 2, 3, 0])


def test_without_gamma_the_largest_stay():
    np.testing.assert_array_equal(breadcrumbs([[1, 2, 3, 4]], gamma=0, density=0.5), [0, 0, 3, 4])


def test_each_model_has_its_own_shares():
    found = breadcrumbs([[1, 2, 3, 4], [10, 20, 30, 40]], gamma=[0, 0.25], density=[0.25, 0.25])
    np.testing.assert_array_equal(found, [0, 0, 30, 4])


def test_l1_restores_the_norm():
    found = breadcrumbs([[1, 2, 3, 4]], gamma=0.25, density=0.25, rescale="l1")
    np.testing.assert_allclose(found, [0, 0, 10, 0])


def test_the_sum_is_scaled_and_normalised_on_demand():
    deltas = [[2, 1], [4, 1]]
    found = breadcrumbs(deltas, gamma=0, density=0.5, weight=[1, 3], scale=0.4, normalize=True)
    np.testing.assert_allclose(found, [0.4 * (2 + 12) / 4, 0])
