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


ISOTROPIC = [
    [4.99646, 0.13786, 1.6051],
    [3.32525, -1.78712, -0.59158],
    [-1.00164, -0.05943, 5.90372],
    [0.8832, 5.88123, -0.15773],
]
LEAST_INTERFERENCE = [
    [2.7846, -0.5077, 2.14995],
    [0.32138, -1.25304, -1.16722],
    [-1.04023, 0.28345, 5.17231],
    [0.49871, 1.05529, -0.77242],
]


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


LAYER = {  # of W, for the biases' mean [1, 0, 0, 0]
    "tsv_m": (
        {},
        [
            [4.02144, -2.11993, 2.72095],
            [-1.81485, -3.43356, -0.26674],
            [-2.31663, 0.60382, 5.03271],
            [0.71878, 2.66101, -2.17385],
        ],
    ),
    "iso_c": ({}, ISOTROPIC),
    "iso_cts": ({"common": 0.8}, ISOTROPIC),
    "cart": (
        {"rank": 0.34},
        [
            [2.79917, -1.17671, 2.9011],
            [-0.93908, -1.6234, -0.62946],
            [-2.96447, 2.13309, 3.55757],
            [-0.09039, 0.37064, -0.55773],
        ],
    ),
    "wudi": (
        {},
        [[4.997, -0.003, 2.997], [2.997, -1.00298, -0.003], [-0.003, -0.997, 7.997], [0.997, 3.997, -0.997]],
    ),
    "aswudi": ({}, LEAST_INTERFERENCE),
    "swudi": (
        {},
        [
            [2.78286, 0.19222, 2.78051],
            [0.3196, -0.5366, -0.52178],
            [-1.04196, 0.97974, 5.7996],
            [0.49495, 2.56688, 0.58937],
        ],
    ),
    "knots": (
        {"density": 1, "scale": 1.0},
        [
            [5.08077, 0.84254, 1.44289],
            [-1.81336, 0.26839, 0.87038],
            [0.41976, -2.09349, 2.45243],
            [-0.63035, 1.89618, -2.01873],
        ],
    ),
}


@pytest.mark.parametrize("method", LAYER)
def test_a_spectral_method_agrees_with_its_authors_or_a_computation_in_float64(method: str):
    settings, wanted = LAYER[method]
    np.testing.assert_allclose(delta_of(method, DELTAS, BASE, **settings), wanted, atol=1e-5)


@pytest.mark.parametrize("method", LAYER)
def test_a_spectral_method_averages_biases(method: str):
    scale = {} if method == "cart" else {"scale": 1.0}
    np.testing.assert_allclose(delta_of(method, BIASES, vector_1d="mean", **scale), [1, 0, 0, 0], atol=1e-15)


def test_wudi_in_closed_form_has_the_least_interference():
    found = delta_of("wudi", DELTAS, BASE, solver="closed")
    np.testing.assert_allclose(found, LEAST_INTERFERENCE, atol=1e-5)
    losses = [interference(found), interference(DELTAS.mean(axis=0)), interference(DELTAS.sum(axis=0))]
    np.testing.assert_allclose(losses, [25.63155, 38.23969, 61.2344], atol=1e-5)


def interference(merged: np.ndarray) -> float:
    return float(sum(np.sum(((merged - one) @ one.T) ** 2) / np.sum(one**2) for one in DELTAS))


def test_swudi_after_a_short_time():
    wanted = [
        [3.47712, 0.1191, 2.86359],
        [1.16049, -0.70462, -0.33295],
        [-0.70283, 0.29412, 6.56158],
        [0.64304, 3.05931, 0.04319],
    ]
    np.testing.assert_allclose(delta_of("swudi", DELTAS, BASE, time=1.0), wanted, atol=1e-5)


def test_knots_at_a_half():
    wanted = [
        [5.27719, 1.45853, 2.57821],
        [-1.73207, -0.51252, 0.49524],
        [0.48734, -2.59323, 2.86898],
        [0.04021, 2.26628, -2.04888],
    ]
    np.testing.assert_allclose(delta_of("knots", DELTAS, BASE, density=0.5, scale=1.0), wanted, atol=1e-5)


def test_svc_of_the_sum():
    wanted = [
        [4.02103, 0.37543, 0.79536],
        [2.62272, -0.81185, -0.47532],
        [-1.08602, -0.26738, 3.80587],
        [1.12766, 3.53234, -0.30363],
    ]
    stack = np.concatenate([DELTAS.sum(axis=0, keepdims=True), DELTAS])
    np.testing.assert_allclose(delta_of("svc", stack, BASE), wanted, atol=1e-5)
    np.testing.assert_allclose(delta_of("svc", stack, BASE, alpha=1 / 3), wanted, atol=1e-5)
