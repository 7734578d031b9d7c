"""Warm-ups of ema against the libraries that they are named after, where these are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from polyak.averaging import live  # noqa: E402

from .training import network, sgd, train  # noqa: E402


@pytest.mark.parametrize("settings", [{}, {"power": 0.75, "inv_gamma": 4.0, "min_decay": 0.3}])
@pytest.mark.parametrize("decay", [0.6, 0.999])
def test_the_warm_up_called_timm_is_that_of_timm(decay, settings):
    renamed = {"warmup_gamma": settings.get("inv_gamma", 1.0), "warmup_power": settings.get("power", 2 / 3)}
    model = network()
    averager = live.Averager(model, live.ema(decay, warmup="timm", **settings))
    theirs = _timm().ModelEmaV3(
        model, decay=decay, min_decay=settings.get("min_decay", 0.0), use_warmup=True, **renamed
    )  # fmt: skip
    for step in train(model, sgd(model), range(25)):
        averager.step()
        theirs.update(model, step=step + 1)  # timm's training script counts from 1
    _assert_same(averager, theirs.module)


@pytest.mark.parametrize("settings", [{}, {"power": 0.75, "inv_gamma": 4.0, "min_decay": 0.3}])
def test_the_warm_up_called_ema_pytorch_is_that_of_ema_pytorch(settings):
    ema_pytorch = pytest.importorskip("ema_pytorch", reason="ema-pytorch is not installed")
    model = network()
    averager = live.Averager(model, live.ema(0.9, warmup="ema-pytorch", **settings))
    theirs = ema_pytorch.EMA(
        model, beta=0.9, update_after_step=0, update_every=1, inv_gamma=settings.get("inv_gamma", 1.0),
        power=settings.get("power", 2 / 3), min_value=settings.get("min_decay", 0.0),
    )  # fmt: skip
    for _ in train(model, sgd(model), range(25)):
        averager.step()
        theirs.update()
    _assert_same(averager, theirs.ema_model)


def _timm():
    """The module with timm's averages alone: timm itself needs torchvision."""
    if (found := importlib.util.find_spec("timm")) is None or not found.submodule_search_locations:
        pytest.skip("timm is not installed")
    place = Path(found.submodule_search_locations[0]) / "utils" / "model_ema.py"
    spec = importlib.util.spec_from_file_location("timm_model_ema", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _assert_same(averager, theirs):
    wanted = dict(theirs.named_parameters())
    for name, tensor in averager.weights("ema").items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)
