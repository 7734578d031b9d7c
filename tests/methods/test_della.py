"""DELLA: probabilities by rank, expectation, election."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.errors import SettingError
from polyak.methods import load_all, resolve

load_all()


def della(deltas: Any, method: str = "della_linear", **settings: Any) -> np.ndarray:
    stack = np.array(deltas, np.float64)
    return resolve(method)(stack, np.zeros_like(stack[0]), **settings)


def probabilities(deltas: Any, **settings: Any) -> np.ndarray:
    """What an entry is kept with, found by walking the chance up to where it is dropped."""
    stack = np.array(deltas, np.float64)
    kept = np.zeros(stack.shape[1:])
    for chance in np.arange(0, 1, 0.01):
        found = della(stack, chance=np.full(stack.shape, chance), rescale="none", **settings)
        kept = np.where(found != 0, chance, kept)
    return kept + 0.01


def test_probabilities_grow_with_the_rank_in_the_row():
    found = probabilities([[[1, -3, 2], [30, 20, 10]]], density=0.7, epsilon=0.07)
    np.testing.assert_allclose(found, [[0.63, 0.77, 0.7], [0.77, 0.7, 0.63]], atol=0.011)


def test_a_tensor_of_more_dimensions_has_a_row_for_each_first_index():
    delta = np.arange(1.0, 9).reshape(1, 2, 2, 2)
    found = probabilities(delta, density=0.5, epsilon=0.3)
    np.testing.assert_allclose(found.reshape(2, 4), [[0.2, 0.4, 0.6, 0.8]] * 2, atol=0.011)


def test_among_equals_the_first_counts_as_the_largest():
    np.testing.assert_allclose(probabilities([[1, 1, -1]], density=0.5, epsilon=0.2), [0.7, 0.5, 0.3], atol=0.011)


def test_a_row_of_one_entry_is_kept_with_the_density():
    np.testing.assert_allclose(probabilities([[[1], [5]]], density=0.5, epsilon=0.2), [[0.5], [0.5]], atol=0.011)


@pytest.mark.slow
def test_the_mean_over_seeds_is_the_delta():
    delta = np.array([0.5, -3.0, 1.0, 2.0])
    drawn = np.stack([della([delta], density=0.4, epsilon=0.3, seed=seed) for seed in range(4000)])
    keep = np.array([0.1, 0.7, 0.3, 0.5])
    error = np.abs(drawn.mean(axis=0) - delta)
    assert (error < 5 * np.abs(delta) * np.sqrt((1 - keep) / keep / 4000)).all()


def test_l1_restores_the_norm_by_one_factor():
    delta = np.random.default_rng(3).normal(size=(4, 50))
    found = della([delta], density=0.4, epsilon=0.2, rescale="l1")
    np.testing.assert_allclose(np.abs(found).sum(), np.abs(delta).sum())
    factors = found[found != 0] / delta[found != 0]
    np.testing.assert_allclose(factors, factors[0])


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_a_density_of_one_keeps_everything_whatever_the_window(method: str):
    np.testing.assert_array_equal(della([[1, -2, 3]], method, density=1, epsilon=0.4), [1, -2, 3])


def test_each_model_has_its_own_window_and_weights_are_normalised_on_demand():
    chance = np.full((2, 2), 0.45)
    found = della(
        [[2, 1], [4, 8]], chance=chance, density=[0.4, 0.6], epsilon=[0.1, 0.2], weight=[1, 3], normalize=True
    )
    np.testing.assert_allclose(found, [2 / 0.5 / 4, 3 * 8 / 0.8 / 4])


def test_della_merges_what_has_the_elected_sign_and_counts_zero_as_positive():
    chance = np.zeros((3, 2))
    found = della([[-2, 1], [3, 1], [1, -2]], "della", chance=chance, density=0.5, epsilon=0, weight=[1, 1, 1])
    np.testing.assert_allclose(found, [2 * (3 + 1) / 2, 2.0])
    dropped = della([[-2, 1], [3, 1], [1, -2]], "della", chance=chance, density=0.5, epsilon=0, zero_sum="drop")
    np.testing.assert_allclose(dropped, [4.0, 0.0])


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.1), (0.1, 0.3), (0.9, 0.2)])
def test_a_window_that_leaves_the_probabilities_is_refused(density: float, epsilon: float):
    with pytest.raises(SettingError, match=f"'della_linear': density {density:g} with epsilon {epsilon:g} gives"):
        della([[1, 2]], density=density, epsilon=epsilon)
