"""Every schedule against its formula in float64, on a module that trains."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from polyak.averaging import curve_weights, exponent_of, exponential, live  # noqa: E402
from polyak.errors import SettingError  # noqa: E402

from .training import assert_close, network, sgd, train, values  # noqa: E402

STEPS = 23


def run(average, steps=STEPS, **options):
    """An averager after some steps, and the weights theta_0 ... theta_steps."""
    model = network()
    averager, history = live.Averager(model, average, **options), [values(model)]
    for _ in train(model, sgd(model), range(steps)):
        history.append(values(model))
        averager.step(samples=8)
    return averager, history


def weighted(history, weights):
    """The linear combination of the weights after each step."""
    assert len(weights) == len(history)
    return {name: sum(w * h[name] for w, h in zip(weights, history, strict=True)) for name in history[0]}


def of_updates(every, start, weights):
    """Weights of all steps from those of the updates."""
    full = np.zeros(STEPS + 1)
    full[range(start + every, STEPS + 1, every)] = weights
    return full


def ema_by_hand(history, decays):
    average = history[1]
    for theta, d in zip(history[2:], decays, strict=True):
        average = {name: d * average[name] + (1 - d) * theta[name] for name in theta}
    return average


def test_ema_has_the_weights_of_the_offline_average_that_is_called_raw():
    averager, history = run(live.ema(0.8, every=3, start=2))
    assert_close(averager.weights("ema"), weighted(history, of_updates(3, 2, exponential(7, 0.8, normalised=False))))
    assert averager.updates("ema") == 7


@pytest.mark.parametrize(("power", "inv_gamma", "low"), [(2 / 3, 1.0, 0.0), (0.75, 5.0, 0.2)])
def test_ema_warms_up_as_timm_does(power, inv_gamma, low):
    averager, history = run(live.ema(0.7, warmup=True, power=power, inv_gamma=inv_gamma, min_decay=low))
    decays = [max(min(1 - (1 + n / inv_gamma) ** -power, 0.7), low) for n in range(1, STEPS)]
    assert decays[0] < 0.7
    assert decays[-1] == 0.7
    assert_close(averager.weights("ema"), ema_by_hand(history, decays))
    assert live.ema(0.7, warmup="timm").settings["warmup"] == "timm"


def test_ema_warms_up_by_training_steps_as_ema_pytorch_does():
    averager, history = run(live.ema(0.99, warmup="ema-pytorch", every=4))
    thinned = history[0::4]  # the first entry stands for the update that copies
    decays = [min(1 - (1 + (step - 1)) ** -(2 / 3), 0.99) for step in (8, 12, 16, 20)]
    assert_close(averager.weights("ema"), ema_by_hand(thinned, decays))


@pytest.mark.parametrize(("unit", "elapsed"), [("steps", 2), ("samples", 16)])
def test_ema_halves_the_weight_of_a_term_in_a_half_life(unit, elapsed):
    averager, history = run(live.ema(half_life=5.0, half_life_in=unit, every=2))
    decay = 2 ** (-elapsed / 5)
    assert_close(averager.weights("ema"), weighted(history, of_updates(2, 0, exponential(11, decay, normalised=False))))


def test_uniform_is_the_mean_of_every_nth_step_after_the_start():
    averager, history = run(live.uniform(8, every=3))
    assert_close(averager.weights("uniform"), weighted(history, of_updates(3, 8, [1 / 5] * 5)))


@pytest.mark.parametrize("k", [1, 3, 50])
def test_lawa_is_the_mean_of_the_latest(k):
    averager, history = run(live.lawa(k, every=2))
    latest = history[2::2][-k:]
    assert_close(averager.weights("lawa"), weighted(latest, [1 / len(latest)] * len(latest)))


@pytest.mark.parametrize("curve", ["linear", "1-sqrt", "cosine"])
def test_wsm_is_a_run_whose_last_updates_are_scaled_by_the_curve(curve):
    averager, history = run(live.wsm(curve, window_length=6, every=2))
    latest = history[2::2][-6:]
    shape = {
        "linear": lambda x: 1 - x,
        "1-sqrt": lambda x: 1 - math.sqrt(x),
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    }
    decayed = dict(latest[0])
    for i in range(1, 6):
        step = {name: latest[i][name] - latest[i - 1][name] for name in decayed}
        decayed = {name: decayed[name] + shape[curve](i / 6) * step[name] for name in decayed}
    assert_close(averager.weights("wsm"), decayed)
    assert_close(averager.weights("wsm"), weighted(latest, curve_weights(6, curve)))


def test_wsm_takes_its_curve_from_a_file(tmp_path):
    rates = tmp_path / "rates.txt"
    rates.write_text("0.4 0.3 0.2, 0.1\n0.0")
    averager, history = run(live.wsm(str(rates), window_length=5, every=2))
    assert_close(averager.weights("wsm"), weighted(history[2::2][-5:], curve_weights(5, "linear")))
    with pytest.raises(SettingError, match="no file of this name"):
        live.wsm("nowhere.txt")


def test_zscl_averages_the_start_and_every_nth_step_counted_from_the_first():
    averager, history = run(live.zscl(5))
    terms = [history[0], *history[1::5]]
    assert len(terms) == 6
    assert_close(averager.weights("zscl"), weighted(terms, [1 / 6] * 6))


def test_zscl_takes_the_weights_at_a_later_start():
    averager, history = run(live.zscl(5, start=4))
    terms = [history[4], *history[5::5]]
    assert_close(averager.weights("zscl"), weighted(terms, [1 / len(terms)] * len(terms)))


@pytest.mark.parametrize("start", [0, 6])
def test_bema_adds_the_lag_to_the_average(start):
    averager, history = run(live.bema(0.5, bias_power=0.2, lag=10.0, every=2, start=start))
    mu = history[start]
    for t in range(start + 2, STEPS + 1, 2):
        beta = (10 + t - start) ** -0.5
        mu = {name: (1 - beta) * mu[name] + beta * history[t][name] for name in mu}
    alpha = (10 + STEPS - start) ** -0.2
    wanted = {name: mu[name] + alpha * (history[-1][name] - history[start][name]) for name in mu}
    assert_close(averager.weights("bema"), wanted)


def test_switch_ema_puts_the_average_into_the_model():
    model = network()
    averager = live.Averager(model, live.switch_ema(0.6, switch_every=5))
    average, raw = None, []
    for step in train(model, sgd(model), range(12)):
        theta = values(model)
        average = theta if average is None else {n: 0.6 * average[n] + 0.4 * theta[n] for n in theta}
        averager.step()
        switched = all(np.allclose(values(model)[n], average[n], atol=2e-6) for n in average)
        raw.append(np.array_equal(values(model)["0.weight"], theta["0.weight"]))
        assert switched == ((step + 1) % 5 == 0 or step == 0)
    assert raw == [(step + 1) % 5 != 0 for step in range(12)]
    assert_close(averager.weights("switch_ema"), average)


def test_posthoc_ema_keeps_power_function_averages():
    averager, history = run(live.posthoc_ema(0.06, wide=0.2))
    n = np.arange(STEPS + 1)
    for width in (0.06, 0.2):  # those that are kept come back as they are
        powers = (n / STEPS) ** (exponent_of(width) + 1)
        assert_close(averager.weights("posthoc_ema", width=width), weighted(history, [0, *np.diff(powers)]))
    facts = averager.averages.kept["posthoc_ema"].facts(STEPS, {"width": 0.1})
    assert 0.9 < facts["correlation"] < 1


@pytest.mark.parametrize(
    "average",
    [
        live.ema(0.9, warmup=True), live.uniform(3, every=2), live.lawa(4, every=3), live.wsm(window_length=5),
        live.posthoc_ema(), live.bema(every=2), live.zscl(4), live.switch_ema(0.5, switch_every=100),
    ],
    ids=lambda average: average.kind,
)  # fmt: skip
def test_the_profile_is_the_linear_combination_that_an_averager_computes(average):
    averager, history = run(average)
    weights = live.profile(average, STEPS, samples=8)
    assert weights.sum() == pytest.approx(1)
    assert_close(averager.weights(average.name), weighted(history, weights))


def test_every_schedule_is_in_the_test_of_profiles_and_exported_by_the_door():
    live.load_all()
    marks = test_the_profile_is_the_linear_combination_that_an_averager_computes.pytestmark
    built_in = {name for name in live.registry if live.registry.is_built_in(name)}
    assert {average.kind for average in marks[0].args[1]} == built_in
    for name in built_in:
        assert getattr(live, name).__doc__ == live.resolve(name).fn.__doc__


def test_an_averager_that_counts_every_nth_step_equals_the_thinned_sequence():
    averager, history = run(live.ema(0.8), every=4, start=3)
    thinned = history[7::4]
    assert_close(averager.weights("ema"), weighted(thinned, exponential(len(thinned), 0.8, normalised=False)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: live.ema(1.5), "between 0 and 1"),
        (lambda: live.ema(decay="fast"), "a number"),
        (lambda: live.ema(0.9, warmup="slow"), "one of False, True, timm, ema-pytorch"),
        (lambda: live.ema(0.9, decay=0.8), "takes each setting once"),
        (lambda: live.ema(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0), "takes each setting once"),
        (lambda: live.ema(0.9, beta=0.8), "no setting 'beta'"),
        (lambda: live.lawa(0), "at least 1"),
        (lambda: live.switch_ema(0.9), "needs a value for 'switch_every'"),
        (lambda: live.posthoc_ema(0.5), "0.288675"),
        (lambda: live.posthoc_ema(0.1, wide=0.1), "must differ"),
        (lambda: live.ema(0.9).named("a/b"), "without slashes"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(make, says):
    with pytest.raises(SettingError, match=says):
        make()
