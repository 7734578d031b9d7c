"""The callback in Lightning's Trainer."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytest.importorskip("torch")
import torch

from polyak.averaging import live

from .training import bits, network

if not find_spec("lightning"):  # to import it takes ten seconds, so only the test does
    pytest.skip("lightning is not installed", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers, loggers and torch
AVERAGES = (live.ema(0.8), live.lawa(2, every=2), live.bema())


def module():
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            points, labels = batch
            return torch.nn.functional.cross_entropy(self.net(points), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.9)

    return Module()


def fit(folder, epochs, resume=None):
    from lightning.pytorch import Trainer

    model = module()
    averager = live.Averager(model, *AVERAGES)
    points = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(points, (points.sum(1) > 0).long())
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, accumulate_grad_batches=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[averager.for_lightning()],
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8), ckpt_path=resume)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return averager


def test_a_resumed_training_is_an_uninterrupted_one(tmp_path):
    def result(averager):
        return bits(averager.state_dict()["tensors"]), bits(averager.model.state_dict()), averager.steps

    wanted = result(fit(tmp_path, 2))
    assert wanted[2] == 10  # an epoch has 10 batches, and two batches make a step
    fit(tmp_path, 1)
    assert result(fit(tmp_path, 2, resume=tmp_path / "1.ckpt")) == wanted
