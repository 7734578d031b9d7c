"""Weights of checkpoints: laws of every form, and numbers by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from polyak.averaging import BY_METRIC, by_metric, exponential
from polyak.errors import SettingError


def losses_of(seed: int) -> list[float]:
    """Some losses, a few of them equal."""
    rng = np.random.default_rng(seed)
    return rng.choice(rng.uniform(0.1, 10, 8), seed + 1).tolist()


@pytest.mark.parametrize("losses", [losses_of(seed) for seed in range(10)])
@pytest.mark.parametrize("form", sorted(BY_METRIC))
@pytest.mark.parametrize("penalty", [0.0, 0.3, 0.95])
def test_weights_sum_to_one_and_better_checkpoints_weigh_more(losses: list[float], form: str, penalty: float):
    weights = by_metric(losses, form, penalty, higher_is_better=False)
    assert math.isclose(sum(weights), 1)
    order = np.argsort(losses, kind="stable")
    sorted_weights = np.array(weights)[order]
    assert (np.diff(sorted_weights) <= 1e-12).all()


@pytest.mark.parametrize("losses", [losses_of(seed) for seed in range(10)])
@pytest.mark.parametrize("form", sorted(BY_METRIC))
def test_reordering_the_checkpoints_reorders_the_weights(losses: list[float], form: str):
    order = np.random.default_rng(len(losses)).permutation(len(losses))
    weights = by_metric(losses, form, 0.5, higher_is_better=False)
    again = by_metric([losses[i] for i in order], form, 0.5, higher_is_better=False)
    np.testing.assert_allclose(again, np.array(weights)[order], rtol=1e-9)


@pytest.mark.parametrize("form", ["power", "minmax", "softmax", "rank"])
def test_no_penalty_is_uniform(form: str):
    assert by_metric([3.0, 1.0, 2.0, 0.5], form, 0.0, higher_is_better=False) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("form", sorted(BY_METRIC))
def test_equal_metrics_are_uniform(form: str):
    assert by_metric([2.0, 2.0], form, 0.7, higher_is_better=True) == [0.5, 0.5]


def test_shift_weights_by_the_metric_then_drops_the_worst_then_opposes_it():
    steps = [1.0, 2.0, 3.0]
    assert by_metric(steps, "shift", 0, higher_is_better=True) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert by_metric(steps, "shift", 1, higher_is_better=True) == pytest.approx([0, 1 / 3, 2 / 3])
    assert by_metric(steps, "shift", 1.5, higher_is_better=True) == pytest.approx([-1 / 3, 1 / 3, 1])


def test_power_is_nearly_uniform_for_the_losses_of_a_run_and_not_for_steps():
    losses = np.linspace(0.62, 0.55, 10).tolist()
    weights = by_metric(losses, "power", 0.7, higher_is_better=False)
    assert (round(min(weights), 3), round(max(weights), 3)) == (0.096, 0.104)
    steps = by_metric([float(i) for i in range(1, 11)], "power", 1, higher_is_better=True)
    assert (round(min(steps), 3), round(max(steps), 3)) == (0.018, 0.182)


def test_an_exponential_average_is_the_running_one():
    average, values = 0.0, [3.0, -1.0, 4.0, 10.0]
    for i, value in enumerate(values):
        average = value if i == 0 else 0.8 * average + 0.2 * value
    assert np.dot(exponential(4, 0.8, normalised=False), values) == pytest.approx(average)
    for normalised in (True, False):
        assert exponential(1, 0.8, normalised=normalised) == [pytest.approx(1.0)]
        assert exponential(3, 0, normalised=normalised) == [0, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_exponential_weights_fall_by_the_decay_per_checkpoint_over_the_whole_window(count: int):
    weights = exponential(count, 0.9)
    assert sum(weights) == pytest.approx(1)
    assert [later / earlier for earlier, later in pairwise(weights)] == pytest.approx([1 / 0.9] * (count - 1))
    assert exponential(5, 0.9, normalised=False)[0] == pytest.approx(0.6561)


@pytest.mark.parametrize(
    ("values", "form", "penalty", "said"),
    [
        ([1.0, float("nan")], "shift", 0.7, "finite"),
        ([1.0, -2.0], "power", 0.7, "must be positive"),
        ([1.0, 0.0], "shift", 0.7, "must be positive"),
        ([1.0, 2.0], "shift", 1.5, "sum to"),
        ([1.0, 2.0], "rank", 2, r"must be in \[0, 1\]"),
        ([1.0, 2.0], "shfit", 1, "Did you mean 'shift'"),
    ],
)
def test_what_has_no_weights_is_refused(values: list[float], form: str, penalty: float, said: str):
    with pytest.raises(SettingError, match=said):
        by_metric(values, form, penalty, higher_is_better=False)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float):
    with pytest.raises(SettingError, match="decay"):
        exponential(3, decay)
