"""Methods that weigh by what was measured: published numbers, optimality, and systems without one solution."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest

from polyak.errors import DeclarationError, SettingError
from polyak.methods import Law, Merged, Stat, Tensors, load_all, resolve
from polyak.methods import method as declare

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
INPUTS = [np.array(x, np.float64) for x in ([[1, 0, 1], [0, 1, 0]], [[1, 1, 0], [0, 1, 1]], [[2, 0, 0], [0, 0, 1]])]
GRAMS = np.stack([x.T @ x / len(x) for x in INPUTS])
FISHERS = np.array([[4, 0, 1], [1, 0, 9]], np.float64)
THETAS = np.array([[1, 2, 3], [5, 6, 7]], np.float64)


def merge(name: str, tensors: np.ndarray, base: np.ndarray | None = None, *, given=None, **settings) -> np.ndarray:
    return resolve(name)(tensors, base, statistics=given, **settings)


def test_regmean_agrees_with_the_authors():
    found = merge("regmean", BASE + DELTAS, given={"gram": GRAMS}, keep=0.9, ridge=0.0) - BASE
    wanted = [
        [0.09366, 0.17985, 2.41795],
        [1.4876, -1.81582, -1.10153],
        [-0.20248, 1.74636, 1.6035],
        [0.35675, 0.72353, -0.65742],
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_regmean_without_a_gram_is_the_mean():
    biases = np.array([[1, 0, -1, 2], [0, 1, 1, -2], [2, -1, 0, 0]], np.float64)
    np.testing.assert_allclose(merge("regmean", biases), [1, 0, 0, 0], atol=1e-12)


def misfit(weights: np.ndarray) -> float:
    pairs = zip(INPUTS, BASE + DELTAS, strict=True)
    return sum(float(np.sum((x @ weights.T - x @ w.T) ** 2)) / len(x) for x, w in pairs)


def test_regmean_is_where_the_misfit_on_all_inputs_is_least():
    found = merge("regmean", BASE + DELTAS, given={"gram": GRAMS}, keep=1.0, ridge=0.0)
    least = misfit(found)
    for other in (*(BASE + DELTAS), BASE + DELTAS.mean(axis=0)):
        assert least <= misfit(other)
    slope = sum(2 * (found - w) @ g for w, g in zip(BASE + DELTAS, GRAMS, strict=True))
    assert np.abs(slope).max() < 1e-9 < np.abs(misfit(found + 0.1) - least)


def test_regmean_keeps_every_models_outputs_where_their_inputs_share_no_direction():
    grams = np.stack([np.diag(np.eye(3)[i]) for i in range(3)])
    found = merge("regmean", BASE + DELTAS, given={"gram": grams}, keep=1.0, ridge=0.0)
    np.testing.assert_allclose(found, np.stack([(BASE + DELTAS)[i][:, i] for i in range(3)], axis=1), atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_directions_that_no_input_has_stay_with_the_mean(ridge):
    grams = np.stack([np.diag([1.0, 0, 0])] * 3)
    found = merge("regmean", BASE + DELTAS, given={"gram": grams}, keep=1.0, ridge=ridge)
    np.testing.assert_allclose(found, BASE + DELTAS.mean(axis=0), atol=1e-9)
    nothing = merge("regmean", BASE + DELTAS, given={"gram": 0 * grams}, ridge=ridge)
    np.testing.assert_allclose(nothing, BASE + DELTAS.mean(axis=0), atol=1e-12)


def test_a_nearly_singular_gram_gives_no_large_numbers():
    rng = np.random.default_rng(0)
    thin = rng.standard_normal((3, 2, 40))
    grams = np.swapaxes(thin, 1, 2) @ thin
    tensors = rng.standard_normal((3, 5, 40))
    for ridge in (0.0, 1e-6):
        assert np.abs(merge("regmean", tensors, given={"gram": grams}, keep=1.0, ridge=ridge)).max() < 50


def test_matrices_with_inputs_first_give_the_transpose():
    wanted = merge("regmean", BASE + DELTAS, given={"gram": GRAMS})
    turned = np.swapaxes(BASE + DELTAS, 1, 2)
    np.testing.assert_allclose(merge("regmean", turned, given={"gram": GRAMS}, layout="in_out"), wanted.T, atol=1e-12)
    with pytest.raises(SettingError, match=r"gram.*regmean.*\[3, 4, 4\].*got \[3, 3, 3\]"):
        merge("regmean", turned, given={"gram": GRAMS})


def test_a_convolution_is_a_matrix_over_patches():
    rng = np.random.default_rng(1)
    kernels, columns = rng.standard_normal((2, 4, 3, 2, 2)), rng.standard_normal((2, 30, 12))
    grams = np.swapaxes(columns, 1, 2) @ columns
    found = merge("regmean", kernels, given={"gram": grams})
    np.testing.assert_allclose(
        found.reshape(4, 12), merge("regmean", kernels.reshape(2, 4, 12), given={"gram": grams}), atol=1e-12
    )


@pytest.mark.parametrize(
    ("normalize", "wanted"), [(False, [1.8, 4, 6.6]), (True, [1.40879, 3.25147, 6.21536])], ids=["plain", "normalised"]
)
def test_fisher_agrees_with_the_formula(normalize, wanted):
    found = merge("fisher", THETAS, given={"fisher": FISHERS}, weight=0.5, floored="all", normalize=normalize)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_what_no_model_knows_anything_about_stays_with_the_first():
    found = merge("fisher", THETAS, given={"fisher": FISHERS})
    assert found[1] == 2
    nothing = merge("fisher", THETAS, given={"fisher": 0 * FISHERS}, floor=0.0)
    np.testing.assert_allclose(nothing, [3, 4, 5])


@pytest.mark.parametrize("normalize", [False, True])
def test_equal_fisher_information_for_all_is_the_average(normalize):
    given = {"fisher": np.full_like(THETAS, 1e-20)}
    found = merge("fisher", THETAS, given=given, weight=[1, 3], floor=0.0, normalize=normalize)
    np.testing.assert_allclose(found, merge("linear", THETAS, weight=[1, 3]), rtol=1e-12)


def test_mats_with_grams_is_regmean_and_with_fisher_information_is_fisher():
    by_gram = merge("mats", BASE + DELTAS, BASE, given={"gram": GRAMS})
    np.testing.assert_allclose(
        by_gram, merge("regmean", BASE + DELTAS, given={"gram": GRAMS}, keep=1.0, ridge=0.0), atol=1e-9
    )
    sure = FISHERS + 0.5
    by_fisher = merge("mats", THETAS, np.zeros(3), given={"fisher": sure}, by="fisher")
    np.testing.assert_allclose(by_fisher, merge("fisher", THETAS, given={"fisher": sure}, floor=0.0), atol=1e-9)


def test_mats_leaves_directions_that_no_input_has_where_it_started():
    grams = np.stack([np.diag([1.0, 0, 0])] * 3)
    found = merge("mats", BASE + DELTAS, BASE, given={"gram": grams}) - BASE
    np.testing.assert_allclose(found[:, 0], DELTAS.mean(axis=0)[:, 0], atol=1e-12)
    np.testing.assert_allclose(found[:, 1:], 0.3 * DELTAS.sum(axis=0)[:, 1:], atol=1e-12)


def test_weights_that_are_all_zero_are_refused():
    for name in ("fisher", "regmean"):
        with pytest.raises(SettingError, match="all zero"):
            merge(name, THETAS, weight=0.0)


def test_a_gram_cannot_be_declared_elementwise():
    with pytest.raises(DeclarationError, match="'gram', so it cannot be elementwise"):

        @declare("sliced", source="nobody", laws={Law.ELEMENTWISE})
        def _sliced(tensors: Tensors, gram: Annotated[object, Stat("gram", shape="gram")]) -> Merged:
            """Nothing."""
