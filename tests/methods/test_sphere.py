"""NuSLERP, MultiSLERP and the Karcher mean against formulas on vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.errors import SettingError
from polyak.methods import load_all, resolve

load_all()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def arc(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    omega = np.arccos(unit(first) @ unit(second))
    return (np.sin((1 - t) * omega) * first + np.sin(t * omega) * second) / np.sin(omega)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def test_nuslerp_divides_the_arc_by_the_weights():
    stack = random(2, 3, 4)
    found = resolve("nuslerp")(stack, weight=[1, 3])
    np.testing.assert_allclose(found, arc(stack[0].ravel(), stack[1].ravel(), 0.75).reshape(3, 4), rtol=1e-9)


def test_nuslerp_with_a_base_goes_between_the_deltas():
    stack, base = random(2, 3, 4), random(3, 4, seed=1)
    found = resolve("nuslerp")(stack, base, weight=[1, 3])
    deltas = (stack - base).reshape(2, -1)
    np.testing.assert_allclose(found, base + arc(*deltas, 0.75).reshape(3, 4), rtol=1e-9)


def test_nuslerp_has_an_angle_for_each_row_or_column():
    stack = random(2, 3, 4)
    by_row = resolve("nuslerp")(stack, weight=[1, 1], flatten=False)
    by_column = resolve("nuslerp")(stack, weight=[1, 1], flatten=False, along="first")
    for i in range(3):
        np.testing.assert_allclose(by_row[i], arc(stack[0, i], stack[1, i], 0.5), rtol=1e-9)
    for j in range(4):
        np.testing.assert_allclose(by_column[:, j], arc(stack[0, :, j], stack[1, :, j], 0.5), rtol=1e-9)


def test_columns_of_more_dimensions_run_along_the_first():
    stack = random(2, 3, 2, 2)
    found = resolve("nuslerp")(stack, weight=[1, 1], flatten=False, along="first")
    np.testing.assert_allclose(found[:, 1, 0], arc(stack[0, :, 1, 0], stack[1, :, 1, 0], 0.5), rtol=1e-9)


@pytest.mark.parametrize("second", [[0, 0], [2, 4], [-1, -2]])
def test_nuslerp_goes_straight_where_there_is_no_arc(second: list[float]):
    found = resolve("nuslerp")(np.array([[1, 2], second], np.float64), weight=[3, 1])
    np.testing.assert_allclose(found, 0.75 * np.array([1, 2]) + 0.25 * np.array(second))


def test_small_angles_are_found_exactly():
    first = random(50)
    stack = np.stack([first, first + 1e-5 * random(50, seed=2)])
    np.testing.assert_allclose(resolve("nuslerp")(stack, weight=[1, 1]), stack.mean(axis=0), rtol=1e-9)


def test_multislerp_has_the_mean_direction_and_the_mean_length():
    stack, weight = random(4, 30), np.array([1, 2, 3, 0.5])
    found = resolve("multislerp")(stack, weight=list(weight))
    lengths, shares = np.linalg.norm(stack, axis=1), weight / weight.sum()
    np.testing.assert_allclose(found, shares @ lengths * unit(shares @ (stack / lengths[:, None])), rtol=1e-7)


def test_multislerp_of_directions_that_cancel_is_the_mean():
    found = resolve("multislerp")(np.array([[1.0, 0], [-3.0, 0]]), weight=[1, 1])
    np.testing.assert_allclose(found, [-1, 0])


def test_a_karcher_mean_has_no_gradient():
    stack, weight = random(5, 20), np.array([1, 2, 3, 0.5, 1])
    found = resolve("karcher")(stack, weight=list(weight), max_iter=200, tol=1e-12)
    lengths, shares, mean = np.linalg.norm(stack, axis=1), weight / weight.sum(), unit(found)
    np.testing.assert_allclose(np.linalg.norm(found), shares @ lengths)
    cosines = (stack / lengths[:, None]) @ mean
    pulls = np.arccos(cosines) / np.sqrt(1 - cosines**2) * shares
    np.testing.assert_allclose(pulls @ (stack / lengths[:, None] - cosines[:, None] * mean), 0, atol=1e-10)


def test_a_karcher_mean_of_two_is_the_middle_of_their_arc():
    stack = np.array([[3.0, 0], [0, 1.0]])
    np.testing.assert_allclose(resolve("karcher")(stack), 2 * np.array([1, 1]) / np.sqrt(2))


def test_models_without_length_only_shorten_a_karcher_mean():
    np.testing.assert_allclose(resolve("karcher")(np.array([[3.0, 4], [0, 0]])), [1.5, 2])


@pytest.mark.parametrize("method", ["nuslerp", "multislerp", "karcher"])
def test_weights_without_a_sum_are_refused(method: str):
    weight = [0, 0] if method == "karcher" else [1, -1]
    with pytest.raises(SettingError, match=f"{method!r}: the weights .* sum to zero"):
        resolve(method)(random(2, 3), weight=weight)


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_a_base_of_zeros_is_no_base(method: str):
    stack: Any = random(2, 6)
    found = resolve(method)(stack, np.zeros(6), weight=[1, 2])
    np.testing.assert_allclose(found, resolve(method)(stack, weight=[1, 2]))
