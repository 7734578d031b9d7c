"""Methods that select: SCE, RAM, MagMax, Arcee Fusion, NearSwap, trimmed means, and trims with and without election."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from polyak.methods import load_all, resolve

load_all()


def merge(method: str, deltas: Any, **settings: Any) -> np.ndarray:
    stack = np.array(deltas, np.float64)
    return resolve(method)(stack, np.zeros_like(stack[0]), **settings)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape)


def reference_sce(deltas: np.ndarray, share: float, tie: float) -> np.ndarray:
    variance = deltas.var(axis=0)
    wanted = int(share * np.count_nonzero(variance))
    smallest = np.sort(variance.ravel())[::-1][wanted - 1]
    kept = np.where(variance >= smallest, deltas, 0) if share < 1 else deltas
    weight = (kept**2).mean(axis=(1, 2))
    weight = (weight / weight.sum())[:, None, None]
    sign = np.where(kept.sum(axis=0) == 0, tie, np.sign(kept.sum(axis=0)))
    agrees = kept * sign > 0
    divisor = (weight * agrees).sum(axis=0)
    return (weight * kept * agrees).sum(axis=0) / np.where(divisor == 0, 1, divisor)


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_sce_selects_calculates_and_erases(share: float):
    deltas = random(3, 8, 9)
    deltas[:, 2] = deltas[0, 2]  # where models are alike nothing varies
    np.testing.assert_allclose(merge("sce", deltas, select_topk=share), reference_sce(deltas, share, 0), rtol=1e-9)


def test_sce_counts_the_share_of_what_varies():
    deltas = [[1, 1, 1, 5, 0, 0], [1, 1, 1, 1, 2, 0]]
    assert np.flatnonzero(merge("sce", deltas, select_topk=0.5)).tolist() == [3]


def test_sce_of_nothing_selected_is_the_base():
    assert not merge("sce", random(2, 3, 4), select_topk=0).any()


def test_tiny_deltas_are_weighed_or_taken_alike():
    deltas = 1e-4 * np.array([[1.0, 2], [3.0, 1]])
    np.testing.assert_allclose(merge("sce", deltas, tiny="alike"), deltas.mean(axis=0))
    assert merge("sce", deltas)[0] > deltas.mean(axis=0)[0] * 1.1


def test_ram_averages_what_is_shared_and_keeps_what_is_not():
    deltas = [[1, 2, 0, 0.01], [3, 0.01, 0, 0]]
    np.testing.assert_allclose(merge("ram", deltas, epsilon=0.1), [2, 2, 0, 0])


def test_ramplus_enlarges_what_one_model_alone_changed():
    deltas = [[1, 2, 5, 0, 0], [3, 0, 0, 4, 0]]  # the first: 1 shared, 2 alone; the second: 1 and 1
    found = merge("ramplus_tl", deltas, r=0.5, alpha=0.8)
    np.testing.assert_allclose(found, [2, 2 * 1.25, 5 * 1.25, 4 * 1.4, 0])


def test_magmax_takes_the_largest_and_of_opposites_the_positive():
    np.testing.assert_array_equal(merge("magmax", [[1, -5, 2, -3], [-2, 4, 1, 3]]), [-2, -5, 2, 3])


def test_magmax_at_a_half():
    deltas = random(4, 30)
    largest = np.take_along_axis(deltas, np.abs(deltas).argmax(axis=0)[None], axis=0)[0]
    np.testing.assert_allclose(merge("magmax", deltas, scale=0.5), 0.5 * largest)


def test_arcee_fusion_takes_what_lies_behind_the_fence():
    base, model = random(40, 25), random(40, 25) + 0.3 * random(25, 40).T
    p, q = softmax(model, axis=1) + 1e-8, softmax(base, axis=1) + 1e-8
    importance = np.abs(model - base) * (p * np.log(p / q)).sum(axis=1, keepdims=True)
    first, median, third = np.quantile(importance, [0.25, 0.5, 0.75], method="lower")
    wanted = np.where(importance >= median + 1.5 * (third - first), model, base)
    found = resolve("arcee_fusion")(model[None], base)
    np.testing.assert_allclose(found, wanted)
    assert 0 < (found != base).mean() < 0.3


def test_arcee_fusion_leaves_rows_that_did_not_change():
    base = random(4, 50)
    model = base.copy()
    model[1] += random(50)
    found = resolve("arcee_fusion")(model[None], base)
    assert np.array_equal(found[[0, 2, 3]], base[[0, 2, 3]])


def test_nearswap_goes_no_further_than_its_step():
    np.testing.assert_allclose(merge("nearswap", [[0.05, -0.3, 0.2, -0.01]], t=0.1), [0.05, -0.1, 0.1, -0.01])


@pytest.mark.slow
@pytest.mark.parametrize("trim", [0, 0.1, 0.2, 0.34, 0.45])
@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_a_trimmed_mean_is_scipys(k: int, trim: float):
    from scipy.stats import trim_mean  # takes a second

    stack = random(k, 7)
    np.testing.assert_allclose(resolve("trimmed_mean")(stack, trim=trim), trim_mean(stack, trim, axis=0), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_a_trim_of_a_half_is_the_median(k: int):
    stack = random(k, 7)
    np.testing.assert_allclose(resolve("trimmed_mean")(stack, trim=0.5), np.median(stack, axis=0), rtol=1e-12)


def test_one_broken_model_of_ten_does_not_move_a_trimmed_mean_far():
    stack = random(10, 7)
    stack[4] = 1e9
    assert np.abs(resolve("trimmed_mean")(stack)).max() < 3


def test_magnitude_pruning_adds_the_largest_entries():
    found = merge("magnitude_prune", [[1, -4, 3, 2], [5, 1, 1, 1]], density=0.5, weight=[1, 2])
    np.testing.assert_allclose(found, [10, -4 + 2, 3, 0])


def test_breadcrumbs_ties_elects_among_the_crumbs():
    deltas = [[[9, 2, 1, 0.1]], [[3, -1, 9, 0.1]], [[9, 3, 2, 0.1]]]
    found = merge("breadcrumbs_ties", deltas, gamma=0.25, density=0.5, granularity="tensor")
    np.testing.assert_allclose(found, [[3, 2.5, 1.5, 0]])
    summed = merge("breadcrumbs_ties", deltas, gamma=0.25, density=0.5, granularity="tensor", function="sum", scale=2)
    np.testing.assert_allclose(summed, [[6, 10, 6, 0]])


def test_breadcrumbs_ties_rescales_before_the_election():
    deltas = [[[4, 1, 1]], [[1, 0, -1.5]]]
    settings: dict[str, Any] = {"gamma": 0.34, "density": 0.34, "granularity": "tensor", "rescale": "l1"}
    np.testing.assert_allclose(merge("breadcrumbs_ties", deltas, **settings), [[2.5, 6, 0]])
