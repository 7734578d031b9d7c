"""DARE: expectation, rescaling, densities, and the trim of dare_ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.methods import load_all, resolve

load_all()


def dare(deltas: Any, method: str = "dare_linear", **settings: Any) -> np.ndarray:
    stack = np.array(deltas, np.float64)
    return resolve(method)(stack, np.zeros_like(stack[0]), **settings)


@pytest.mark.slow
def test_the_mean_over_seeds_is_the_delta():
    delta = np.array([1.0, -2.0, 0.5, 3.0])
    drawn = np.stack([dare([delta], density=0.25, seed=seed) for seed in range(4000)])
    error = np.abs(drawn.mean(axis=0) - delta)
    assert (error < 5 * np.abs(delta) * np.sqrt(3 / 4000)).all()  # Var(m / d) = (1 - d) / d = 3


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_density_of_one_drops_nothing(method: str):
    found = dare([[1, -2, 3]], method, density=1)
    np.testing.assert_array_equal(found, [1, -2, 3])


def test_entries_are_kept_where_the_chance_is_below_the_density():
    found = dare([[1, 2, 3]], chance=np.array([[0.49, 0.5, 0.51]]), density=0.5)
    np.testing.assert_array_equal(found, [2, 0, 0])


def test_l1_restores_the_norm_of_each_model():
    rng = np.random.default_rng(1)
    delta = rng.normal(size=200)
    found = dare([delta], density=0.3, rescale="l1")
    assert np.count_nonzero(found) < 100
    np.testing.assert_allclose(np.abs(found).sum(), np.abs(delta).sum())


def test_no_rescaling_keeps_entries_as_they_are():
    found = dare([[1, 2, 3]], chance=np.array([[0.1, 0.9, 0.1]]), density=0.5, rescale="none")
    np.testing.assert_array_equal(found, [1, 0, 3])


def test_l1_of_a_model_that_lost_everything_is_zero():
    np.testing.assert_array_equal(dare([[1, 2]], chance=np.full((1, 2), 0.9), density=0.5, rescale="l1"), [0, 0])


def test_each_model_has_its_own_density_and_weights_are_normalised_on_demand():
    found = dare([[4], [4]], chance=np.full((2, 1), 0.3), density=[0.2, 0.5], weight=[1, 3], normalize=True)
    np.testing.assert_allclose(found, [3 * 8 / 4])


def test_dare_ties_trims_what_the_drop_left_before_rescaling():
    chance = np.array([[0.9, 0.1, 0.1, 0.1]])
    found = dare([[9, 1, 2, 3]], "dare_ties", chance=chance, density=0.5, trim=0.5, topk="exact")
    np.testing.assert_array_equal(found, [0, 0, 4, 6])


def test_the_norms_of_dare_ties_are_those_of_the_drop_alone():
    chance = np.array([[0.9, 0.1, 0.1, 0.1]])
    settings: dict[str, Any] = {"trim": 0.25, "topk": "exact", "rescale": "l1", "density": 0.5}
    found = dare([[4, 1, 2, 3]], "dare_ties", chance=chance, **settings)
    np.testing.assert_allclose(found, [0, 0, 0, 3 * 10 / 6])


def test_dare_ties_elects_among_what_was_kept():
    chance = np.array([[0.9], [0.1], [0.1]])
    found = dare([[-9], [1], [3]], "dare_ties", chance=chance, density=0.5, weight=[1, 1, 3])
    np.testing.assert_allclose(found, [2 * (1 + 9) / 4])


def test_a_zero_density_is_refused():
    from polyak.errors import SettingError

    with pytest.raises(SettingError, match="'density' of method 'dare_linear' must be above 0 and at most 1; got 0"):
        dare([[1]], density=0)
