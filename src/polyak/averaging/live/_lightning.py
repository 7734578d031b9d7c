"""The callback for Lightning's Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from ._averager import Averager


class AveragerCallback(Callback):
    """Counts the optimizer steps of a Trainer; its state is part of Lightning's checkpoints.

    Args of the constructor:
        averager: The averager of the module that is trained, or of a part of it.
    """

    def __init__(self, averager: Averager) -> None:
        self.averager = averager
        self._counted = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._counted = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._counted:  # not while gradients accumulate
            self._counted = trainer.global_step
            per_process = (getattr(trainer.train_dataloader, "batch_size", None) or 1) * trainer.accumulate_grad_batches
            self.averager.step(per_process * trainer.world_size)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.averager.wait()  # also for optimizers that are none of torch's

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.averager.note({name: float(value) for name, value in trainer.callback_metrics.items()})

    def state_dict(self) -> dict[str, Any]:
        return self.averager.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.averager.load_state_dict(state_dict)
