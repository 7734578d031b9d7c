"""Intervals against closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.tasks.paired import average, interval, resampled_means, sign_test, weighted_means

rng = np.random.default_rng(0)
SCORES, WEIGHTS = rng.random((2, 400)), np.ones(400)


@pytest.mark.slow
def test_the_interval_of_a_difference_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    draws = resampled_means(SCORES, WEIGHTS, resamples=20_000, seed=1)
    found = interval(0.0, draws[1] - draws[0])
    theirs = stats.bootstrap(
        (SCORES[1] - SCORES[0],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_spread_of_resampled_means_is_that_of_the_closed_form():
    draws = resampled_means(SCORES, WEIGHTS, resamples=20_000)
    assert draws.std(axis=1) == pytest.approx(SCORES.std(axis=1) / np.sqrt(400), rel=0.03)
    assert draws.mean(axis=1) == pytest.approx(SCORES.mean(axis=1), abs=1e-3)


def test_pairing_narrows_the_interval_of_a_difference():
    hard = rng.random(400)
    both = np.stack([hard, hard + 0.01 * rng.random(400)])
    draws = resampled_means(both, WEIGHTS)
    assert (draws[1] - draws[0]).std() < 0.05 * draws[0].std()


def test_weights_count_examples_as_often_as_they_say():
    weights = rng.integers(1, 4, 400).astype(float)
    repeated = np.repeat(SCORES[0], weights.astype(int))
    assert weighted_means(SCORES[:1], weights) == pytest.approx(repeated.mean())
    assert resampled_means(SCORES, weights, resamples=4000).mean(1) == pytest.approx(
        weighted_means(SCORES, weights), abs=2e-3
    )


def test_examples_without_weight_have_no_mean():
    weights = np.array([0.0, 0.0, 3.0])
    scores = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.25]])
    draws = resampled_means(scores, weights, resamples=200)
    without = np.isnan(draws)  # a resample of the first two alone
    assert without.any() and not without.all()
    assert draws[0][~without[0]] == pytest.approx(0.5)
    assert np.isnan(weighted_means(scores, np.zeros(3))).all()
    own = resampled_means(scores, np.stack([weights, weights[::-1]]), resamples=200)
    assert own[0][~np.isnan(own[0])] == pytest.approx(0.5)
    assert own[1][~np.isnan(own[1])] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_numbers_and_chunks_do_not_matter(monkeypatch):
    first = resampled_means(SCORES, WEIGHTS, resamples=300, seed=3)
    assert np.array_equal(first, resampled_means(SCORES, WEIGHTS, resamples=300, seed=3))
    assert not np.array_equal(first, resampled_means(SCORES, WEIGHTS, resamples=300, seed=4))
    monkeypatch.setattr("polyak.tasks.paired._CHUNK", 7 * 400)
    assert first == pytest.approx(resampled_means(SCORES, WEIGHTS, resamples=300, seed=3), rel=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (7, 7), (30, 12), (600, 500)])
def test_the_sign_test_is_the_binomial_test(wins, losses):
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(np.array([1.0] * wins + [-1.0] * losses + [0.0] * 3)) == pytest.approx(wanted, rel=1e-9)


def test_draws_that_are_not_finite_leave_no_interval():
    assert interval(1.0, np.array([1.0, np.inf])).low is None
    assert interval(1.0, np.array([1.0, 2.0])).excludes(0)


def test_tasks_are_averaged_draw_by_draw():
    value, draws = average([(1.0, np.array([1.0, 2.0])), (3.0, np.array([3.0, 6.0]))])
    assert value == 2.0 and np.array_equal(draws, [2.0, 4.0])
