"""Methods between, or beyond, two ends: slerp, model stock, WiSE-FT, ExPO."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.errors import SettingError
from polyak.methods import load_all, resolve

load_all()


def merge(method: str, tensors: Any, base: Any = None, **settings: Any) -> np.ndarray:
    return resolve(method)(np.array(tensors, np.float64), None if base is None else np.array(base, float), **settings)


@pytest.mark.parametrize(("t", "wanted"), [(0, [1, 0, 2]), (1, [0, 3, -1])])
def test_slerp_ends_at_its_two_models(t: float, wanted: list[float]):
    np.testing.assert_allclose(merge("slerp", [[1, 0, 2], [0, 3, -1]], t=t), wanted, atol=1e-15)


def test_slerp_of_unit_vectors_is_a_unit_vector():
    angle = 1.2
    found = merge("slerp", [[1, 0], [np.cos(angle), np.sin(angle)]], t=0.3)
    np.testing.assert_allclose(found, [np.cos(0.3 * angle), np.sin(0.3 * angle)])


@pytest.mark.parametrize(("angle", "straight"), [(0.031, True), (0.032, False), (np.pi - 0.031, True)])
def test_slerp_is_straight_where_the_cosine_is_beyond_its_limit(angle: float, straight: bool):
    other = [2 * np.cos(angle), 2 * np.sin(angle)]
    found = merge("slerp", [[1, 0], other], t=0.25)
    line = 0.75 * np.array([1, 0]) + 0.25 * np.array(other)
    assert np.array_equal(found, line) is straight


@pytest.mark.parametrize("tiny", [0, 1e-9])
def test_slerp_with_a_tensor_of_no_length_is_straight(tiny: float):
    np.testing.assert_allclose(merge("slerp", [[tiny, 0], [0, 2]], t=0.25), [0.75 * tiny, 0.5], atol=1e-15)


def test_slerp_takes_a_tensor_as_one_vector():
    first, second = np.array([[1.0, 0], [0, 1]]), np.array([[0.0, 1], [-1, 0]])
    np.testing.assert_allclose(merge("slerp", [first, second]), (first + second) * np.sqrt(0.5))


def test_slerp_takes_exactly_two_models():
    with pytest.raises(SettingError, match="'slerp' merges exactly 2 models; got 3"):
        merge("slerp", [[1], [2], [3]])


def test_model_stock_of_one_direction_is_the_mean():
    np.testing.assert_allclose(merge("model_stock", [[1, 2], [2, 4]], [0, 0]), [1.5, 3])


def test_model_stock_of_a_right_angle_is_the_base():
    np.testing.assert_array_equal(merge("model_stock", [[1, 5], [0, 7]], [0, 5]), [0, 5])


def test_model_stock_follows_its_formula():
    angle = 1.0
    deltas = np.array([[1, 0], [3 * np.cos(angle), 3 * np.sin(angle)]])
    ratio = 2 * np.cos(angle) / (1 + np.cos(angle))
    np.testing.assert_allclose(merge("model_stock", deltas, [0, 0]), ratio * deltas.mean(axis=0))


def test_model_stock_of_opposite_models_leaves_the_base_only_without_the_clamp():
    deltas = np.array([[1, 0], [3 * np.cos(2.0), 3 * np.sin(2.0)]])
    ratio = 2 * np.cos(2.0) / (1 + np.cos(2.0))
    assert ratio < 0
    np.testing.assert_array_equal(merge("model_stock", deltas, [0, 0]), [0, 0])
    np.testing.assert_allclose(merge("model_stock", deltas, [0, 0], clamp=False), ratio * deltas.mean(axis=0))


def test_model_stock_of_exactly_opposite_models_is_the_base():
    np.testing.assert_array_equal(merge("model_stock", [[2, 0], [-1, 0]], [0, 0], clamp=False), [0, 0])


@pytest.mark.parametrize(("tensors", "wanted"), [([[0, 0], [0, 0]], [0, 0]), ([[0, 0], [4, 2]], [0, 0])])
def test_model_stock_of_models_of_no_length(tensors: Any, wanted: Any):
    np.testing.assert_array_equal(merge("model_stock", tensors, [0, 0]), wanted)


def test_model_stock_counts_two_unmoved_models_as_agreeing():
    found = merge("model_stock", [[0, 0], [0, 0], [3, 0]], [0, 0])
    cosine = (1 + 0 + 0) / 3
    np.testing.assert_allclose(found, [3 * cosine / (1 + 2 * cosine), 0])


def test_model_stock_by_row_gives_each_row_its_own_ratio():
    tensors = np.random.default_rng(0).normal(size=(3, 4, 6))
    whole = merge("model_stock", tensors, np.zeros((4, 6)), granularity="row", clamp=False)
    for row in range(4):
        alone = merge("model_stock", tensors[:, row], np.zeros(6), clamp=False)
        np.testing.assert_allclose(whole[row], alone)


def test_wise_ft_lies_between_and_expo_beyond():
    np.testing.assert_allclose(merge("wise_ft", [[3, 1]], [1, 1], alpha=0.25), [1.5, 1])
    np.testing.assert_allclose(merge("expo", [[3, 1]], [1, 1], alpha=0.25), [3.5, 1])


def test_expo_refuses_to_go_back():
    with pytest.raises(SettingError, match=r"'alpha' of method 'expo' must be at least 0; got -0\.1"):
        merge("expo", [[1]], [0], alpha=-0.1)
