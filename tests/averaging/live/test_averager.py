"""Averagers: swapping, saving, options, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import polyak
from polyak.averaging import live
from polyak.errors import DeclarationError, Mismatch, NotFinite, OutputExists, SettingError
from polyak.inspection import verify

from .training import Tied, assert_close, bits, network, sgd, train, values


def trained(*averages, steps=6, model=None, **options):
    model = network() if model is None else model
    averager = live.Averager(model, *averages, **options)
    for _ in train(model, sgd(model), range(steps)):
        averager.step()
    return averager


def test_several_averages_equal_those_kept_alone():
    averages = [live.ema(0.8), live.lawa(2, every=2), live.uniform(), live.bema(), live.ema(0.5).named("fast")]
    together = trained(*averages)
    assert together.names == ("ema", "lawa", "uniform", "bema", "fast")
    for average in averages:
        alone = trained(average)
        assert bits(together.weights(average.name)) == bits(alone.weights(average.name))


def test_swapped_brings_the_weights_back_after_an_exception():
    averager = trained(live.ema(0.5))
    before, average = bits(averager.model.state_dict()), averager.weights("ema")
    with pytest.raises(ZeroDivisionError), averager.swapped("ema") as model:
        assert model is averager.model
        assert bits(dict(model.named_parameters())) == bits(average)
        1 / 0
    assert bits(averager.model.state_dict()) == before
    averager.step()  # no longer swapped


def test_nothing_is_counted_or_stored_while_an_average_is_swapped_in(tmp_path):
    averager = trained(live.ema(0.5))
    with averager.swapped("ema"):
        for action in (averager.step, averager.state_dict, lambda: averager.save_state(tmp_path / "s.safetensors")):
            with pytest.raises(Mismatch, match="swapped in"):
                action()
        with pytest.raises(Mismatch, match="swapped in"), averager.swapped("ema"):
            pass
    assert averager.steps == 6
    assert not list(tmp_path.iterdir())


def test_a_saved_average_is_a_model_that_polyak_verifies(tmp_path):
    averager = trained(live.posthoc_ema())
    raw, average = bits(averager.model.state_dict()), averager.weights("posthoc_ema", width=0.08)
    averager.save("posthoc_ema", tmp_path / "out", width=0.08)
    assert bits(averager.model.state_dict()) == raw
    with polyak.open(tmp_path / "out") as written:
        assert set(written.specs) == set(averager.model.state_dict())
        for name, tensor in average.items():
            np.testing.assert_array_equal(written.read(name), tensor.numpy())
        assert written.read("1.num_batches_tracked") == 6
    assert verify(tmp_path / "out").differing == ()
    facts = polyak.checkpoint.read_json(tmp_path / "out" / "polyak.json")["average"]
    assert facts["settings"]["narrow"] == 0.05
    assert (facts["kind"], facts["updates"], facts["width"]) == ("posthoc_ema", 6, 0.08)
    assert 0.9 < facts["correlation"] <= 1
    with pytest.raises(OutputExists):
        averager.save("posthoc_ema", tmp_path / "out")
    averager.save("posthoc_ema", tmp_path / "out", force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_tied_parameters_are_averaged_and_saved_once(tmp_path):
    model = Tied()
    averager = live.Averager(model, live.uniform())
    averager.step()
    assert list(averager.weights("uniform")) == ["embed.weight"]
    with averager.swapped("uniform"):
        assert model.head.weight is model.embed.weight
    averager.save("uniform", tmp_path / "out")
    load_model = pytest.importorskip("safetensors.torch").load_model
    with torch.no_grad():
        other = Tied()
    assert not any(load_model(other, tmp_path / "out" / "model.safetensors"))
    assert bits(other.state_dict()) == bits(model.state_dict())


def test_copies_have_the_dtype_that_is_asked_for_and_no_more_of_them_exist():
    model = network(dtype=torch.bfloat16)
    size = sum(p.numel() for p in model.parameters())
    for dtype, nbytes in ((None, 4), (torch.bfloat16, 2), (torch.float64, 8)):
        averager = live.Averager(model, live.ema(), live.lawa(3), dtype=dtype)
        assert not averager.state_dict()["tensors"]  # made when they are first written
        for _ in range(5):
            averager.step()
        copies = averager.state_dict()["tensors"].values()
        assert sum(copy.nbytes for copy in copies) == (1 + 3) * size * nbytes
        assert all(not copy.requires_grad for copy in copies)


def test_sixteen_bits_are_averaged_in_float32():
    model = network(dtype=torch.bfloat16)
    averager, history = live.Averager(model, live.ema(0.9)), []
    for _ in train(model, sgd(model), range(10)):
        history.append(values(model))
        averager.step()
    average = history[0]
    for theta in history[1:]:
        average = {name: 0.9 * average[name] + 0.1 * theta[name] for name in theta}
    assert_close(averager.weights("ema"), average)
    with averager.swapped("ema"):
        assert next(model.parameters()).dtype == torch.bfloat16


def test_patterns_and_frozen_parameters_are_left_out():
    model = network()
    model[3].requires_grad_(False)
    assert list(trained(live.ema(), model=network(), exclude=("bias$", "^1"), steps=1).weights("ema")) == [
        "0.weight", "3.weight",
    ]  # fmt: skip
    averager = trained(live.ema(), model=model, trainable_only=True, steps=1)
    assert list(averager.weights("ema")) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_buffers_are_averaged_if_asked():
    model = network()
    averager, means = live.Averager(model, live.uniform(), buffers="averaged"), []
    for _ in train(model, sgd(model), range(4)):
        means.append(model[1].running_mean.double().clone())
        averager.step()
    average = averager.weights("uniform")
    assert "1.num_batches_tracked" not in average
    torch.testing.assert_close(average["1.running_mean"].double(), torch.stack(means).mean(0), rtol=0, atol=1e-6)
    with averager.swapped("uniform"):
        assert torch.equal(model[1].running_mean, average["1.running_mean"])
    assert torch.equal(model[1].running_mean.double(), means[-1])


def test_batchnorm_is_measured_again_for_the_average():
    points = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    averager = trained(live.uniform(), buffers="remeasured", batches=lambda: points.split(16))
    model, before = averager.model, bits(averager.model.state_dict())
    weight, bias = averager.weights("uniform")["0.weight"], averager.weights("uniform")["0.bias"]
    with averager.swapped("uniform"):
        wanted = (points @ weight.T + bias).mean(0)
        torch.testing.assert_close(model[1].running_mean, wanted, rtol=0, atol=1e-5)
    assert bits(model.state_dict()) == before


def test_wrappers_are_looked_through():
    model = network()
    averager = live.Averager(nn.DataParallel(model), live.ema())
    assert averager.model is model


@pytest.mark.parametrize("policy", ["raise", "skip", "unchecked"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_treated_by_policy(policy, bad):
    averager = trained(live.ema(0.9), live.lawa(2), not_finite=policy)
    before = bits(averager.weights("ema"))
    with torch.no_grad():
        averager.model[3].bias[1] = bad
    if policy == "raise":
        with pytest.raises(NotFinite, match=r"'3.bias' holds NaN or infinity at step 7"):
            averager.step()
    elif policy == "skip":
        with pytest.warns(UserWarning, match="step 7 is left out"):
            averager.step()
        assert averager.skipped == 1
    else:
        averager.step()
        for name in averager.names:
            with pytest.raises(NotFinite, match=r"'3.bias' of the average"), averager.swapped(name):
                pass
        assert torch.isfinite(averager.model[3].weight).all()
        return
    assert bits(averager.weights("ema")) == before
    assert averager.updates("ema") == averager.updates("lawa") == 6


def test_large_finite_weights_are_not_taken_for_infinity():
    model = nn.Linear(4, 4, bias=False)
    nn.init.constant_(model.weight, 3e38)
    averager = live.Averager(model, live.uniform())
    averager.step()
    assert averager.updates("uniform") == 1


def test_an_average_without_updates_is_refused(tmp_path):
    averager = trained(live.ema(), live.uniform(10, every=5))
    for read in (lambda: averager.weights("uniform"), lambda: averager.save("uniform", tmp_path / "out")):
        with pytest.raises(Mismatch, match=r"no update yet: the first is at step 15"):
            read()
    with pytest.raises(Mismatch, match="no update yet"), averager.swapped("uniform"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_model_that_changes_is_refused():
    averager = trained(live.ema())
    averager.model[3] = nn.Linear(5, 3)
    with pytest.raises(Mismatch, match=r"'3.weight' of the model has shape \(3, 5\), and \(2, 5\)"):
        averager.step()
    averager.model[3] = nn.Identity()
    with pytest.raises(Mismatch, match=r"no longer has the tensor '3.weight'"):
        averager.step()


def broken(name):
    @live.average(name, source="A test.")
    def declared() -> live.Schedule:
        """Names a copy that does not exist."""
        return live.Schedule(lambda moment: {1: 1.0})

    try:
        return declared()
    finally:
        live.registry.pop(name)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: live.Averager(network()), SettingError, "needs an average"),
        (lambda: live.Averager(network(), live.ema(), live.ema(0.9)), SettingError, "2 averages are called 'ema'"),
        (lambda: live.Averager(nn.ReLU(), live.ema()), Mismatch, "ReLU has no parameters"),
        (
            lambda: live.Averager(network().requires_grad_(False), live.ema(), trainable_only=True),
            Mismatch, "no trainable floating-point parameters to average",
        ),
        (lambda: live.Averager(network(), live.ema(), exclude=(".",)), Mismatch, "that '.' leave to average"),
        (lambda: live.Averager(network(), live.ema(), exclude=("(",)), SettingError, r"'\(' is not one"),
        (lambda: live.Averager(network(), live.ema(), every=0), SettingError, "at least 1"),
        (lambda: live.Averager(network(), live.lawa(every=15), every=10), SettingError, "Use multiples of 10"),
        (lambda: live.Averager(network(), live.zscl(), every=10), SettingError, "every=1 for the averager"),
        (lambda: live.Averager(network(), live.ema(), dtype=torch.int8), SettingError, "float64, float32"),
        (lambda: live.Averager(network(), live.ema(), buffers="none"), SettingError, "copied, averaged, remeasured"),
        (lambda: live.Averager(network(), live.ema(), buffers="remeasured"), SettingError, "needs `batches`"),
        (lambda: live.Averager(network(), live.ema(), not_finite="ignore"), SettingError, "raise, skip, unchecked"),
        (lambda: trained(live.ema()).weights("emma"), SettingError, "Did you mean 'ema'"),
        (lambda: trained(live.ema()).weights("ema", width=0.1), SettingError, "cannot be read with"),
        (lambda: trained(broken("broken")), DeclarationError, "names copy 1; it declares 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_averaged_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()
