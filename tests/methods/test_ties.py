"""TIES: how many survive, ties, zero sums, functions."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.methods import load_all, resolve

load_all()
ZERO = np.zeros(10, np.float32)


def ties(deltas: object, **settings: object) -> np.ndarray:
    stack = np.array(deltas, np.float32)
    return resolve("ties")(stack, np.zeros_like(stack[0]), **settings)


def test_official_keeps_one_more_than_exact():
    ladder = [np.arange(1, 11)]
    assert np.count_nonzero(ties(ladder, density=0.3, topk="official")) == 4
    assert np.count_nonzero(ties(ladder, density=0.3, topk="exact")) == 3


def test_official_keeps_every_equal_of_the_smallest_survivor_and_exact_the_first():
    plateau = [[5, 1, -1, 1, 1, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(ties(plateau, density=0.2, topk="official"), [5, 1, -1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(ties(plateau, density=0.3, topk="exact"), [5, 1, -1, 0, 0, 0, 0, 0, 0, 0])


def test_exact_keeps_at_least_one_entry():
    np.testing.assert_array_equal(ties([[1, 3, 2]], density=0.1, topk="exact"), [0, 3, 0])


def test_a_density_of_one_keeps_everything():
    np.testing.assert_array_equal(ties([[1, -3, 2]], density=1), [1, -3, 2])


def test_each_model_has_its_own_density():
    found = ties([[1, 2, 3, 4], [10, 20, 30, 40]], density=[1, 0.25], topk="exact", function="sum")
    np.testing.assert_array_equal(found, [1, 2, 3, 44])


@pytest.mark.parametrize(("function", "wanted"), [("mean", (0.5 * 4 + 0.25 * 2) / 0.75), ("sum", 2.5), ("max", 2)])
def test_the_agreeing_entries_are_merged_by_weight(function: str, wanted: float):
    found = ties([[4], [2], [-1]], density=1, weight=[0.5, 0.25, 1], function=function)
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


@pytest.mark.parametrize(
    ("zero_sum", "wanted"), [("majority", [-1, -2, -3]), ("positive", [1, -2, -3]), ("drop", [0, -2, -3])]
)
def test_a_sum_of_zero_takes_the_sign_that_the_setting_says(zero_sum: str, wanted: list[float]):
    assert ties([[1, -2, -3], [-1, -2, -3]], density=1, zero_sum=zero_sum).tolist() == wanted


def test_a_balanced_majority_drops_the_entry():
    assert ties([[1, -2, 2], [-1, -2, 2]], density=1).tolist() == [0, -2, 2]


def test_a_negative_weight_turns_a_models_vote():
    assert ties([[1], [3]], density=1, weight=[1, -1], function="sum").tolist() == [-3]


def test_mergekits_settings_are_a_mean_by_weight_of_what_agrees_with_the_sign_of_the_sum():
    rng = np.random.default_rng(0)
    deltas, weight = rng.normal(size=(3, 40)).astype(np.float32), np.array([0.2, 0.5, 0.7], np.float32)
    kept = np.zeros_like(deltas)
    for row, delta in zip(kept, deltas, strict=True):
        top = np.argsort(-np.abs(delta))[: int(0.4 * 40)]
        row[top] = delta[top]
    weighted = weight[:, None] * kept
    agrees = np.sign(weighted) == np.where(weighted.sum(0) >= 0, 1, -1)
    share = (weight[:, None] * agrees).sum(0)
    wanted = (weighted * agrees).sum(0) / np.where(share == 0, 1, share)
    found = ties(deltas, weight=weight.tolist(), density=0.4, topk="exact", zero_sum="positive")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_rescaling_gives_each_model_its_l1_norm_back_before_the_election():
    deltas = [[1, 2, 3, 4, 0], [0, 0, 0, -1, -9]]
    alone = ties(deltas[:1], density=0.4, topk="exact", rescale="l1")
    np.testing.assert_allclose(alone, [0, 0, 10 * 3 / 7, 10 * 4 / 7, 0], rtol=1e-6)
    together = ties(deltas, density=[0.4, 0.2], topk="exact", rescale="l1", function="sum")
    np.testing.assert_allclose(together, [0, 0, 10 * 3 / 7, 10 * 4 / 7, -10], rtol=1e-6)
