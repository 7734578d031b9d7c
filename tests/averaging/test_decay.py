"""Weights of checkpoints are synthetic decays of the learning rate; power-function averages give other widths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyak.averaging import (
    Profile,
    curve_of,
    curve_weights,
    exponent_of,
    exponential,
    implied_decay,
    stepwise,
    synthesise,
    weights_of_decay,
    width_of,
)
from polyak.errors import SettingError

LENGTHS = st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda weights: sum(weights) > 0.1)


@given(LENGTHS, st.integers(0, 1000))
def test_an_average_is_the_end_of_a_run_whose_updates_are_scaled(raw, seed):
    weights = np.array(raw) / sum(raw)
    checkpoints = np.random.default_rng(seed).normal(size=(len(weights), 5))
    decayed = checkpoints[0].copy()
    for scale, update in zip(implied_decay(list(weights)), np.diff(checkpoints, axis=0), strict=True):
        decayed += scale * update
    np.testing.assert_allclose(decayed, weights @ checkpoints, atol=1e-12)


@given(LENGTHS)
def test_decays_and_weights_are_inverses_and_decays_never_grow(raw):
    weights = np.array(raw) / sum(raw)
    scales = implied_decay(list(weights))
    assert (np.diff([1.0, *scales, 0.0]) <= 1e-12).all()
    np.testing.assert_allclose(weights_of_decay(scales), weights, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_a_linear_decay_is_the_uniform_average(count):
    np.testing.assert_allclose(curve_weights(count, "linear"), [1 / count] * count)
    for curve in ("linear", "1-sqrt", "cosine"):
        weights = curve_weights(count, curve)
        assert sum(weights) == pytest.approx(1)
        assert min(weights) >= 0


def test_an_exponential_average_is_a_convex_decay():
    scales = implied_decay(exponential(12, 0.7, normalised=False))
    assert (np.diff(scales, 2) <= 0).all()
    assert (np.diff(implied_decay(exponential(12, 0.7)), 2) <= 0).all()  # towards the end it falls faster and faster


def test_a_curve_from_a_file_is_interpolated_between_its_rates(tmp_path):
    rates = tmp_path / "rates.csv"
    rates.write_text("2e-4,1e-4\n5e-5\n")
    assert [curve_of(str(rates))(x) for x in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([1, 0.75, 0.5, 0.375, 0.25])
    np.testing.assert_allclose(curve_weights(4, str(rates)), [0.25, 0.25, 0.125, 0.375])


@pytest.mark.parametrize("text", ["", "1", "1 2", "0 0", "1 nan", "1 -1", "one two", "inf 1", "\xff"])
def test_files_that_hold_no_curve_are_refused(text, tmp_path):
    rates = tmp_path / "rates.txt"
    rates.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingError, match=r"rates.txt is not a decay curve"):
        curve_of(str(rates))


@pytest.mark.parametrize("width", [0.06, 0.2])
@pytest.mark.parametrize("steps", [[10, 20, 30, 40], [7, 8, 33], [0, 5]])
def test_checkpoints_stand_for_the_steps_since_the_one_before(steps, width):
    synthesis, gamma = stepwise(steps, width), exponent_of(width)
    times = (np.arange(200_000) + 0.5) / 200_000
    wanted = (gamma + 1) * times**gamma
    bins = np.searchsorted(np.array(steps) / steps[-1], times)
    masses = np.bincount(bins, wanted, len(steps)) / len(times)
    np.testing.assert_allclose(synthesis.coefficients, masses, atol=1e-4)
    ours = (masses / np.maximum(np.bincount(bins, minlength=len(steps)) / len(times), 1e-12))[bins]
    assert synthesis.correlation == pytest.approx(ours @ wanted / np.sqrt((ours @ ours) * (wanted @ wanted)), abs=1e-4)


def test_a_post_hoc_average_needs_steps():
    with pytest.raises(SettingError, match="steps above 0"):
        stepwise([0], 0.1)


def test_unknown_curves_are_refused():
    with pytest.raises(SettingError, match="Did you mean 'linear'"):
        curve_weights(3, "linaer")
    with pytest.raises(SettingError, match="at least one"):
        curve_weights(0, "linear")


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_widths_have_the_exponents_of_the_paper(width, exponent):
    assert exponent_of(width) == pytest.approx(exponent, abs=5e-3)
    assert width_of(exponent_of(width)) == pytest.approx(width)
    grid = (np.arange(200_000) + 0.5) / 200_000
    density = grid ** exponent_of(width)
    mean = np.average(grid, weights=density)
    assert np.sqrt(np.average((grid - mean) ** 2, weights=density)) == pytest.approx(width, rel=1e-6)


def test_a_width_that_is_kept_is_returned_as_it_is():
    profiles = [Profile(exponent_of(width), 100) for width in (0.05, 0.1)]
    for i, width in enumerate((0.05, 0.1)):
        synthesis = synthesise(profiles, width)
        np.testing.assert_allclose(synthesis.coefficients, np.eye(2)[i], atol=1e-8)
        assert synthesis.correlation == pytest.approx(1)


@pytest.mark.parametrize("width", [0.06, 0.15, 0.25])
def test_a_synthesis_is_the_best_with_sum_one_and_tells_its_correlation(width):
    ends = [10, 20, 30, 40]
    profiles = [Profile(exponent_of(w), end) for end in ends for w in (0.05, 0.1)]
    synthesis = synthesise(profiles, width)
    times = (np.arange(40_000) + 0.5) / 1000
    density = np.array(
        [np.where(times < p.end, (p.exponent + 1) * (times / p.end) ** p.exponent / p.end, 0) for p in profiles]
    )
    gamma = exponent_of(width)
    wanted = (gamma + 1) * (times / 40) ** gamma / 40
    ours = np.array(synthesis.coefficients) @ density
    assert sum(synthesis.coefficients) == pytest.approx(1)
    assert synthesis.correlation == pytest.approx(ours @ wanted / np.sqrt((ours @ ours) * (wanted @ wanted)), abs=1e-4)
    rng = np.random.default_rng(0)
    error = np.sum((ours - wanted) ** 2)
    for _ in range(20):
        change = rng.normal(size=len(profiles)) * 1e-3
        other = (np.array(synthesis.coefficients) + change - change.mean()) @ density
        assert np.sum((other - wanted) ** 2) >= error


@pytest.mark.parametrize("width", [0.0, 0.3, -1.0])
def test_impossible_widths_are_refused(width):
    with pytest.raises(SettingError, match="above 0 and at most"):
        exponent_of(width)
    with pytest.raises(SettingError, match="no averages"):
        synthesise([], 0.1)
