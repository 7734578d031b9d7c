"""Sums and medians: linear, task arithmetic, median, passthrough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak.errors import SettingError
from polyak.methods import load_all, resolve

load_all()


def merge(method: str, tensors: Any, base: Any = None, **settings: Any) -> list[float]:
    found = resolve(method)(np.array(tensors, float), None if base is None else np.array(base, float), **settings)
    return np.round(found, 12).tolist()


def test_linear_divides_by_the_sum_of_the_weights_unless_told_not_to():
    assert merge("linear", [[1], [5]], weight=[1, 3]) == [4]
    assert merge("linear", [[1], [5]], weight=[1, 3], normalize=False) == [16]


def test_task_arithmetic_adds_scaled_deltas():
    assert merge("task_arithmetic", [[2, 1], [1, 4]], [1, 1], scale=0.5) == [1.5, 2.5]


def test_task_arithmetic_divides_by_the_weights_on_demand():
    assert merge("task_arithmetic", [[2, 1], [1, 5]], [1, 1], weight=[1, 3], normalize=True) == [1.25, 4]


def test_a_negative_weight_forgets():
    assert merge("task_arithmetic", [[3, 1]], [1, 1], weight=-1) == [-1, 1]


def test_an_analogy_is_a_sum_with_a_minus():
    assert merge("task_arithmetic", [[5], [4], [2]], [1], weight=[1, 1, -1]) == [1 + 4 + (3 - 1)]


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "dare_linear", "breadcrumbs"])
def test_weights_that_sum_to_zero_cannot_be_normalised(method: str):
    with pytest.raises(SettingError, match=rf"{method}.*\[1\.0, -1\.0\] sum to zero"):
        merge(method, [[1], [2]], [0], weight=[1, -1], normalize=True)
    assert merge("task_arithmetic", [[1], [2]], [0], weight=[1, -1]) == [-1]


@pytest.mark.parametrize(
    ("values", "wanted"), [([3], 3), ([1, 4], 2.5), ([9, 1, 5], 5), ([9, 1, 5, 2], 3.5), ([1, 1e9, 2, -1e9, 3], 2)]
)
def test_the_median_is_the_middle_or_the_mean_of_the_middle_two(values: list[float], wanted: float):
    assert merge("median", [[v] for v in values]) == [wanted]


def test_the_median_of_the_largest_numbers_does_not_overflow():
    largest = np.finfo(np.float32).max
    assert resolve("median")(np.full((2, 1), largest, np.float32)).tolist() == [largest]


def test_passthrough_scales_one_model():
    assert merge("passthrough", [[1, -2]], scale=0.5) == [0.5, -1]
    with pytest.raises(SettingError, match="exactly 1 model; got 2"):
        merge("passthrough", [[1], [2]])
