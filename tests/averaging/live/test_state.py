"""States of averagers: a resumed run is an uninterrupted one, bit for bit, and other states are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from polyak.averaging import live, synthesise
from polyak.averaging.power_function import Profile, exponent_of
from polyak.errors import CannotResume, CheckpointError, Mismatch, SettingError

from .training import assert_close, bits, network, sgd, train

AVERAGES = (
    live.ema(0.9, warmup=True), live.uniform(2, every=2), live.lawa(3, every=2), live.wsm(window_length=4),
    live.posthoc_ema(), live.bema(every=3), live.zscl(4), live.switch_ema(0.7, switch_every=5),
    live.ema(half_life=9.0, half_life_in="samples", every=3).named("by samples"),
)  # fmt: skip


def averager_of(model, **options):
    return live.Averager(model, *AVERAGES, **options)


def result(averager):
    """Every bit that a run leaves behind."""
    state = averager.state_dict()
    return (
        {key: value for key, value in state.items() if key != "tensors"},
        bits(state["tensors"]),
        bits(averager.model.state_dict()),
    )


@pytest.mark.parametrize("through", ["file", "memory"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_resumed_run_is_an_uninterrupted_one(through, dtype, stop, tmp_path):
    model = network()
    optimizer, averager = sgd(model), averager_of(model, dtype=dtype)
    for step in train(model, optimizer, range(13)):
        averager.step(samples=step + 1)
    wanted = result(averager)

    model = network()
    optimizer, averager = sgd(model), averager_of(model, dtype=dtype)
    for step in train(model, optimizer, range(stop)):
        averager.step(samples=step + 1)
    averager.save_state(tmp_path / "averages.safetensors")
    torch.save([model.state_dict(), optimizer.state_dict(), averager.state_dict()], tmp_path / "state.pt")

    model = network(seed=1)
    optimizer, averager = sgd(model), averager_of(model, dtype=dtype)
    weights, momentum, state = torch.load(tmp_path / "state.pt")
    model.load_state_dict(weights)
    optimizer.load_state_dict(momentum)
    if through == "file":
        averager.load_state(tmp_path / "averages.safetensors")
    else:
        averager.load_state_dict(state)
    for step in train(model, optimizer, range(stop, 13)):
        averager.step(samples=step + 1)
    assert result(averager) == wanted


def test_a_state_that_was_loaded_shares_no_memory():
    model = network()
    averager, other = live.Averager(model, live.ema()), live.Averager(model, live.ema())
    averager.step()
    other.load_state_dict(averager.state_dict())
    before = bits(averager.weights("ema"))
    with torch.no_grad():
        model[0].weight.add_(1)
    other.step()
    assert bits(averager.weights("ema")) == before


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: live.Averager(m, live.ema(0.8)), "the settings of the average 'ema' differs"),
        (lambda m: live.Averager(m, live.uniform().named("ema")), "the kind of the average 'ema' differs, 'ema' in"),
        (lambda m: live.Averager(m, live.ema(), live.lawa()), "the names of the averages differs"),
        (lambda m: live.Averager(m, live.ema(), every=2), "`every` differs, 1 in the state and 2 here"),
        (lambda m: live.Averager(m, live.ema(), start=2), "`start` differs"),
        (lambda m: live.Averager(m, live.ema(), dtype=torch.float64), "the dtype of '0.weight'"),
        (lambda m: live.Averager(m, live.ema(), exclude=("^0",)), "the number of averaged tensors differs, 6 in"),
        (
            lambda m: live.Averager(torch.nn.Sequential(torch.nn.Linear(4, 5), *m[1:]), live.ema()),
            "shape of '0.weight'",
        ),
    ],
)
def test_a_state_of_another_averager_is_refused(make, says, tmp_path):
    averager = live.Averager(network(), live.ema())
    averager.step()
    averager.save_state(tmp_path / "averages.safetensors")
    other = make(network())
    for load in (
        lambda: other.load_state(tmp_path / "averages.safetensors"),
        lambda: other.load_state_dict(averager.state_dict()),
    ):
        with pytest.raises(CannotResume, match=says):
            load()
    assert other.steps == 0
    assert not other.state_dict()["tensors"]


def test_what_is_no_state_is_refused(tmp_path):
    averager = live.Averager(network(), live.ema())
    averager.step()
    averager.save("ema", tmp_path / "model")
    with pytest.raises(CheckpointError, match="is not a state of an averager"):
        averager.load_state(tmp_path / "model" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"nothing.safetensors"):
        averager.load_state(tmp_path / "nothing.safetensors")
    with pytest.raises(CannotResume, match="not a state of an averager: it lacks format"):
        averager.load_state_dict({})
    state = averager.state_dict()
    state["tensors"].popitem()
    with pytest.raises(CannotResume, match="lacks copy 0"):
        averager.load_state_dict(state)
    whole = tmp_path / "averages.safetensors"
    averager.save_state(whole)
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        averager.load_state(whole)


WRITER = """
import sys
import torch
from polyak.averaging import live
model = torch.nn.Linear(500, 500)
averager = live.Averager(model, live.ema())
while True:
    averager.step()
    averager.save_state(sys.argv[1])
"""


def test_a_state_file_survives_a_kill_at_any_moment(tmp_path):
    path = tmp_path / "averages.safetensors"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=os.environ) as writer:
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        writer.kill()
    averager = live.Averager(torch.nn.Linear(500, 500), live.ema())
    averager.load_state(path)
    assert averager.steps > 0
    averager.save_state(path)  # overwrites what the killed process left
    assert {file.name for file in tmp_path.iterdir()} <= {path.name}


def test_state_files_of_several_steps_give_widths_that_one_does_not(tmp_path):
    model = network()
    averager, history, files = live.Averager(model, live.posthoc_ema(), dtype=torch.float64), [], []
    for step in train(model, sgd(model), range(40)):
        history.append({name: p.detach().double().numpy().copy() for name, p in model.named_parameters()})
        averager.step()
        if step % 4 == 3:
            files.append(tmp_path / f"{step}.safetensors")
            averager.save_state(files[-1])
    weights, synthesis = live.synthesised(files, 0.18)
    exponents = (exponent_of(0.05), exponent_of(0.1))
    alone = synthesise([Profile(exponent, 40) for exponent in exponents], 0.18)
    assert synthesis.correlation > 0.999 > 0.95 > alone.correlation
    profile = sum(
        x * profile_of(exponent, end)
        for x, (end, exponent) in zip(
            synthesis.coefficients, [(end, e) for end in range(4, 41, 4) for e in exponents], strict=True
        )
    )
    wanted = {name: sum(w * theta[name] for w, theta in zip(profile, history, strict=True)) for name in history[0]}
    assert_close(weights, wanted, 1e-9)


def profile_of(exponent, end):
    powers = [min(i / end, 1) ** (exponent + 1) for i in range(41)]
    return torch.tensor(powers, dtype=torch.float64).diff().numpy()


def test_states_that_cannot_be_synthesised_are_refused(tmp_path):
    averager = live.Averager(network(), live.posthoc_ema(), live.ema())
    averager.save_state(tmp_path / "early.safetensors")
    averager.step()
    averager.save_state(tmp_path / "a.safetensors")
    other = live.Averager(network(), live.posthoc_ema(0.07))
    other.step()
    other.save_state(tmp_path / "b.safetensors")
    with pytest.raises(SettingError, match="no state files"):
        live.synthesised([], 0.1)
    with pytest.raises(Mismatch, match="no updated average"):
        live.synthesised([tmp_path / "early.safetensors"], 0.1)
    with pytest.raises(Mismatch, match="no updated average 'ema'"):
        live.synthesised([tmp_path / "a.safetensors"], 0.1, name="ema")
    with pytest.raises(Mismatch, match="of another run"):
        live.synthesised([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], 0.1)


def test_a_disk_that_is_full_is_told(tmp_path, monkeypatch):
    from polyak.errors import OutputError
    from polyak.modules import tensor_file

    averager = live.Averager(network(), live.ema())
    averager.step()
    path = tmp_path / "averages.safetensors"
    averager.save_state(path)
    before = path.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device", str(Path(path)))

    monkeypatch.setattr(tensor_file, "sync_file", full)
    averager.step()
    with pytest.raises(OutputError, match="is full"):
        averager.save_state(path)
    assert path.read_bytes() == before
