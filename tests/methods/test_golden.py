"""Published and independently computed results for three small models of one layer.

The layer is Linear(3 -> 4). Numbers marked "authors" were computed with the method's official code or a port of it
by others; the rest by an independent implementation in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.methods import load_all, resolve

load_all()

BASE = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float64)
DELTAS = np.array(
    [
        [[4, -1, 0], [0, 2, 1], [-3, 0, 1], [0, 1, -2]],
        [[2, 1, 0], [1, -4, 0], [3, 1, 2], [0, 0, 1]],
        [[-1, 0, 3], [2, 1, -1], [0, -2, 5], [1, 3, 0]],
    ],
    np.float64,
)
BIASES = np.array([[1, 0, -1, 2], [0, 1, 1, -2], [2, -1, 0, 0]], np.float64)
EVERYTHING = np.concatenate([DELTAS.reshape(3, 12), BIASES], axis=1)  # the model as one tensor, as global trims see it


def delta_of(method: str, deltas: np.ndarray, base: np.ndarray | None = None, **settings: Any) -> np.ndarray:
    base = np.zeros(deltas.shape[1:]) if base is None else base
    return resolve(method)(base + deltas, base, **settings) - base


def assert_weights_and_bias(found: np.ndarray, weights: list[list[float]], bias: list[float]) -> None:
    np.testing.assert_allclose(found[:12].reshape(4, 3), weights, atol=1e-5)
    np.testing.assert_allclose(found[12:], bias, atol=1e-5)


def test_ties_sum_at_a_fifth_agrees_with_the_authors():
    found = delta_of("ties", EVERYTHING, density=0.2, function="sum", zero_sum="majority")
    assert_weights_and_bias(found, [[6, 0, 3], [2, -4, 0], [3, -2, 7], [0, 3, -2]], [2, 0, 0, 2])


def test_ties_mean_at_a_half_agrees_with_the_authors():
    found = delta_of("ties", EVERYTHING, density=0.5, zero_sum="majority")
    assert_weights_and_bias(found, [[3, 1, 3], [1.5, -4, 1], [3, -2, 8 / 3], [1, 2, -2]], [1.5, 1, 1, 2])


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        (0, [[0, -1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]),
        (1, [[0, 1, 0], [1, 0, 0], [0, 0, 2], [0, 0, 0]]),
        (2, [[-1, 0, 0], [0, 1, 0], [0, -2, 0], [1, 0, 0]]),
    ],
)
def test_breadcrumbs_that_remove_one_and_keep_one_of_three(model: int, kept: list[list[int]]):
    found = delta_of("breadcrumbs", DELTAS[model : model + 1], gamma=0.34, density=0.34)
    np.testing.assert_array_equal(found, kept)


def test_magmax_at_a_half_agrees_with_the_port_of_others_but_where_opposites_are_equal():
    found = delta_of("magmax", EVERYTHING, scale=0.5)
    opposite = [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]  # of these the port takes the last model's, we the positive
    weights = np.array([[2, 0.5, 1.5], [1, -2, -0.5], [1.5, -1, 2.5], [0.5, 1.5, -1]])
    assert_weights_and_bias(found, np.where(opposite, -weights, weights), [1, 0.5, 0.5, 1])


def test_model_stock_by_the_mean_cosine():
    wanted = [
        [-0.12378, 0, -0.07427],
        [-0.07427, 0.02476, 0],
        [0, 0.02476, -0.19804],
        [-0.02476, -0.09902, 0.02476],
    ]
    np.testing.assert_allclose(delta_of("model_stock", DELTAS, BASE, clamp=False), wanted, atol=1e-5)


def test_model_stock_of_models_that_disagree_is_the_base():
    np.testing.assert_array_equal(resolve("model_stock")(BASE + DELTAS, BASE), BASE)


def test_model_stock_of_models_that_agree():
    first, second, third = DELTAS
    wanted = [
        [4.22677, -0.7975, -0.23925],
        [0, 1.19626, 1.03675],
        [-2.39251, 0.319, 0.87725],
        [-0.07975, 0.71775, -1.75451],
    ]
    similar = np.stack([first, first + 0.5 * second, first - 0.25 * third])
    np.testing.assert_allclose(delta_of("model_stock", similar, BASE), wanted, atol=1e-5)


def test_slerp_of_a_right_angle():
    tensors = np.array([[1, 0, 0], [0, 2, 0]], np.float64)
    np.testing.assert_allclose(resolve("slerp")(tensors, t=0.25), [0.92388, 0.76537, 0], atol=1e-5)
