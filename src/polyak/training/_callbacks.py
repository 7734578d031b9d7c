"""Callbacks of the training loop: masks, snapshots, progress."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import Mismatch
from ..runs import Desk
from ._models import write_live

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoint import Checkpoint
    from ..modules import LiveModel

_EVERY = 0.2  # seconds between two reports of progress


class Masked(TrainerCallback):
    """Keeps weights at 0 where a mask is 0: their gradients are 0, and so are momentum, decay and update.

    Gradients are masked as they are computed, before they are clipped: a norm of pruned gradients has no say.

    Args of the constructor:
        live: The module.
        masks: 0 and 1, by the names of tensors.

    Raises:
        Mismatch: there is no such parameter, or it has another shape.
    """

    def __init__(self, live: LiveModel, masks: Mapping[str, Tensor]) -> None:
        parameters = live.parameters
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                raise Mismatch(f"there is a mask of {list(mask.shape)} for {name!r}: no parameter has that shape.")
            self._pairs.append((parameters[name], mask.to(parameters[name].device, parameters[name].dtype)))
        self._hooks: list[Any] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for parameter, mask in self._pairs:
            with torch.no_grad():
                parameter.mul_(mask)
            self._hooks.append(parameter.register_hook(lambda gradient, mask=mask: gradient * mask))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for hook in self._hooks:
            hook.remove()


class Snapshots(TrainerCallback):
    """Writes the model after some steps, to `checkpoint-STEP`: a run that `polyak average` reads.

    Args of the constructor:
        live: The module.
        source: The checkpoint that it was made from.
        folder: The parent of the folders.
        steps: The steps.
    """

    def __init__(self, live: LiveModel, source: Checkpoint, folder: Path, steps: Sequence[int]) -> None:
        self._live, self._source, self._folder, self._steps = live, source, folder, frozenset(steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step in self._steps:
            out = self._folder / f"checkpoint-{state.global_step}"
            write_live(self._live, self._source, out, note=f"step {state.global_step} of {state.max_steps}")


class Progress(TrainerCallback):
    """Reports steps, a few times per second."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._told, self._last = desk, 0, 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        if now - self._last > _EVERY or state.global_step == state.max_steps:
            self._desk.advance(state.global_step - self._told)  # after a resumption, also the steps done before
            self._told, self._last = state.global_step, now
