"""The Trainer of transformers on a task: examples by position, losses of the task, plain checkpoints."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..checkpoint import Checkpoint, SafetensorsFile
from ..modules import entries, quietly, read_tensor, write_tensors
from ..runs import Desk, UnitFailed
from ._callbacks import Masked, Progress, Snapshots
from ._setup import TRAIN, Optimisation, Setup

if TYPE_CHECKING:
    from ..modules import LiveModel
    from ..tasks import Task
    from ._loop import Fit

WEIGHTS, COMPLETE, STATE = "model.safetensors", "complete", "training"
_MODES = {"float32": {}, "bfloat16": {"bf16": True}, "float16": {"fp16": True}}


def trained(desk: Desk, setup: Setup, live: LiveModel, source: Checkpoint, how: Fit) -> float:
    """See `fit`."""
    folder = desk.folder / STATE
    resumed = _last_complete(folder)
    desk.rewind(0 if resumed is None else int(resumed.name.rpartition("-")[2]))
    with quietly():
        trainer = TaskTrainer(desk, setup, live, how, _arguments(setup, how, folder))
        for callback in (
            *([Masked(live, how.masks)] if how.masks else []),
            *how.callbacks,
            *([Snapshots(live, source, desk.folder, how.snapshots)] if how.snapshots else []),
            Progress(desk),
            _Completed(),
        ):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    live.module.eval()
    _refuse_not_finite(live, how.steps)
    shutil.rmtree(folder, ignore_errors=True)
    return trainer.last_loss


class TaskTrainer(Trainer):
    """A Trainer whose loss is the task's, and whose checkpoints are plain state dicts for any module."""

    def __init__(self, desk: Desk, setup: Setup, live: LiveModel, how: Fit, args: TrainingArguments) -> None:
        self._task, self._desk, self._how = setup.task(), desk, how
        self.last_loss = math.nan
        super().__init__(
            model=live.module, args=args, train_dataset=_Positions(self._task.count(TRAIN)),
            data_collator=_Collator(self._task), optimizer_cls_and_kwargs=_optimizer(setup.how),
        )  # fmt: skip
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over examples of the task's losses."""
        return self._task.losses(model, inputs["batch"]).mean()

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Matrices and filters decay, biases and norms do not."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The rate of the unit, per step."""
        tuned: Any = optimizer or self.optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(tuned, self._how.rate or (lambda step: 1.0))
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write metrics of the unit.

        Raises:
            UnitFailed: the loss is not finite.
        """
        super().log(logs, start_time)
        if "loss" not in logs:
            return
        step, self.last_loss = self.state.global_step, float(logs["loss"])
        self._desk.measured(step=step, loss=self.last_loss, learning_rate=logs.get("learning_rate", math.nan))
        if not math.isfinite(self.last_loss):
            raise UnitFailed(
                f"it diverged: its loss is {self.last_loss} at step {step} of {self._how.steps}. Lower the learning "
                "rate, or clip gradients."
            )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        module: Any = self.model
        tensors = entries(module) if state_dict is None else state_dict
        write_tensors(Path(output_dir or str(self.args.output_dir)) / WEIGHTS, tensors, {"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        module: Any = model or self.model
        own = entries(module)
        with SafetensorsFile(Path(resume_from_checkpoint) / WEIGHTS) as file, torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(read_tensor(file, name))


class _Positions(Dataset[int]):
    """The positions of the examples, which a sampler shuffles."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index


class _Collator:
    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, examples: list[int]) -> dict[str, Any]:
        return {"batch": self._task.batch(TRAIN, examples)}


class _Completed(TrainerCallback):
    """Marks checkpoints that were written to the end: the last callback that is called.

    Metrics are logged at the end, and whenever a checkpoint is written: the Trainer forgets the losses since the last
    log when it resumes.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = control.should_log or control.should_save or state.global_step == state.max_steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def _last_complete(folder: Path) -> Path | None:
    """The last checkpoint that was written to the end; others are removed."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _arguments(setup: Setup, how: Fit, folder: Path) -> TrainingArguments:
    saving: dict[str, Any] = {"save_strategy": "no"}
    if setup.checkpoint_every:
        saving = {"save_strategy": "steps", "save_steps": setup.checkpoint_every, "save_total_limit": 1}
    on_cpu = setup.device == "cpu"
    return TrainingArguments(
        output_dir=str(folder), max_steps=how.steps, seed=how.seed, data_seed=how.seed,
        per_device_train_batch_size=setup.how.batch_size, gradient_accumulation_steps=setup.how.accumulate,
        learning_rate=setup.how.learning_rate, weight_decay=setup.how.weight_decay, max_grad_norm=setup.how.clip,
        logging_strategy="steps", logging_steps=min(setup.log_every, how.steps), logging_nan_inf_filter=False,
        remove_unused_columns=False, report_to=[], disable_tqdm=True, use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu, **_MODES[setup.how.precision], **saving,
    )  # fmt: skip


def _optimizer(how: Optimisation) -> tuple[Any, dict[str, Any]]:
    if how.optimizer == "sgd":
        return torch.optim.SGD, {"lr": how.learning_rate, "momentum": how.momentum}
    return torch.optim.AdamW, {"lr": how.learning_rate}


def _refuse_not_finite(live: LiveModel, steps: int) -> None:
    for name, tensor in live.tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UnitFailed(f"it diverged: {name!r} holds NaN or infinity after {steps} steps.")
