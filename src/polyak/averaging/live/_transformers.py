"""The callback for the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...errors import CannotResume, Mismatch
from ._selection import unwrapped
from ._state import path_of, writes

if TYPE_CHECKING:
    from ._averager import Averager

STATE = "averages.safetensors"


class AveragerCallback(TrainerCallback):
    """Counts the steps of a Trainer, and keeps the averager's state with its checkpoints.

    The state is written before the checkpoint, next to its folder, and moved into it afterwards: a checkpoint is never
    without its averages, wherever the process is killed.

    Args of the constructor:
        averager: The averager of the model that is trained.
        resume_from: Folder of the checkpoint to resume from, if it is not in the output folder.
    """

    def __init__(self, averager: Averager, resume_from: str | Path | None) -> None:
        self.averager, self._resume_from = averager, resume_from

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = kwargs.get("model")
        if model is not None and unwrapped(model) is not self.averager.model:
            raise Mismatch(
                "the Trainer trains another model than that of the averager. Pass the same object to both, and no "
                "model_init."
            )
        if state.global_step:
            path = self._saved(args, state.global_step)
            self.averager.load_state(path)
            if path.parent == Path(str(args.output_dir)):  # left by a process that was killed while it saved
                self._move(path, _folder(args, state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.averager.step(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)
        self._stage(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stage(args, state, control)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.averager.wait()  # also for optimizers that are none of torch's

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.averager.note(kwargs.get("metrics") or {})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        staged, folder = self._staged(args, state.global_step), _folder(args, state.global_step)
        if path_of(self.averager.averages, staged).exists():
            self._move(staged, folder)
        else:
            self.averager.save_state(folder / STATE)

    def _stage(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        if control.should_save:
            pattern = path_of(self.averager.averages, self._staged(args, "*"))
            for stale in pattern.parent.glob(pattern.name):
                stale.unlink(missing_ok=True)
            self.averager.save_state(self._staged(args, state.global_step))

    def _move(self, staged: Path, folder: Path) -> None:
        if writes(self.averager.averages) and folder.is_dir():
            path_of(self.averager.averages, staged).replace(path_of(self.averager.averages, folder / STATE))

    def _staged(self, args: TrainingArguments, step: int | str) -> Path:
        return Path(str(args.output_dir)) / f".averages-{step}.safetensors"

    def _saved(self, args: TrainingArguments, step: int) -> Path:
        folder = _folder(args, step) if self._resume_from is None else Path(self._resume_from)
        for path in (folder / STATE, self._staged(args, step)):
            if path_of(self.averager.averages, path).exists():
                return path
        raise CannotResume(
            f"training resumes at step {step}, but {folder} has no {STATE}. Was it trained without this averager? If "
            "the checkpoint is in another folder, pass it to `for_transformers(resume_from=...)`."
        )


def _folder(args: TrainingArguments, step: int) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{step}"
