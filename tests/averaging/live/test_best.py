"""The best value of an average so far, by a metric."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import polyak  # noqa: E402
from polyak.averaging import live  # noqa: E402
from polyak.errors import CannotResume, Mismatch, SettingError  # noqa: E402

from .test_state import result  # noqa: E402
from .training import bits, network, sgd, train  # noqa: E402

LOSSES = [3.0, 2.0, float("nan"), 2.0, 2.5, 1.5, 1.7]
BEST = (live.Best("ema", "eval_loss"), live.Best("bema", "f1", higher_is_better=True, name="top"))


def averager_of(model):
    return live.Averager(model, live.ema(0.8), live.bema(), best=BEST)


def advance(averager, optimizer, steps):
    """Train; returns the averages after each step."""
    seen = []
    for step in train(averager.model, optimizer, steps):
        averager.step()
        seen.append({name: bits(averager.weights(name)) for name in ("ema", "bema")})
        with averager.swapped("bema"):
            averager.note({"eval_loss": LOSSES[step], "f1": LOSSES[step], "other": 0.0})
    return seen


def test_the_best_average_is_kept_and_ties_keep_the_earlier():
    model = network()
    averager = averager_of(model)
    assert averager.names == ("ema", "bema", "best-ema", "top")
    seen = advance(averager, sgd(model), range(5))
    assert bits(averager.weights("best-ema")) == seen[1]["ema"]
    assert bits(averager.weights("top")) == seen[0]["bema"]


def test_it_is_saved_with_its_metric(tmp_path):
    model = network()
    averager = averager_of(model)
    seen = advance(averager, sgd(model), range(7))
    averager.save("best-ema", tmp_path / "out")
    facts = polyak.checkpoint.read_json(tmp_path / "out" / "polyak.json")["average"]
    assert (facts["best_of"], facts["metric"], facts["value"], facts["step"]) == ("ema", "eval_loss", 1.5, 6)
    with polyak.open(tmp_path / "out") as written:
        assert written.read("0.weight").tobytes() == seen[5]["ema"]["0.weight"]


@pytest.mark.parametrize("through", ["file", "memory"])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_run_keeps_the_same_best_bit_for_bit(through, stop, tmp_path):
    model = network()
    averager = averager_of(model)
    advance(averager, sgd(model), range(7))
    wanted = result(averager)

    model = network()
    optimizer, averager = sgd(model), averager_of(model)
    advance(averager, optimizer, range(stop))
    averager.save_state(tmp_path / "averages.safetensors")
    torch.save([model.state_dict(), optimizer.state_dict(), averager.state_dict()], tmp_path / "state.pt")

    model = network(seed=1)
    optimizer, averager = sgd(model), averager_of(model)
    weights, momentum, state = torch.load(tmp_path / "state.pt")
    model.load_state_dict(weights)
    optimizer.load_state_dict(momentum)
    if through == "file":
        averager.load_state(tmp_path / "averages.safetensors")
    else:
        averager.load_state_dict(state)
    advance(averager, optimizer, range(stop, 7))
    assert result(averager) == wanted


def test_what_cannot_be_the_best_is_refused():
    model = network()
    with pytest.raises(SettingError, match="Did you mean 'ema'"):
        live.Averager(model, live.ema(), best=[live.Best("emma", "loss")])
    with pytest.raises(SettingError, match="unclear whether a higher 'elo'"):
        live.Averager(model, live.ema(), best=[live.Best("ema", "elo")])
    with pytest.raises(SettingError, match="2 averages are called 'ema'"):
        live.Averager(model, live.ema(), best=[live.Best("ema", "loss", name="ema")])
    with pytest.raises(SettingError, match="without slashes"):
        live.Averager(model, live.ema(), best=[live.Best("ema", "loss", name="a/b")])
    averager = live.Averager(model, live.ema(), best=[live.Best("ema", "loss")])
    averager.note({"loss": 1.0})  # before the first update there is no average
    averager.step()
    with pytest.raises(Mismatch, match="no metric 'loss' has been noted for 'best-ema'"):
        averager.weights("best-ema")
    other = live.Averager(model, live.ema(), best=[live.Best("ema", "eval_loss")])
    with pytest.raises(CannotResume, match="the metric of 'best-ema' differs, 'loss' in the state"):
        other.load_state_dict(averager.state_dict())
