"""Modules run on the batches of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import TaskError
from ._api import Asked, Batch, Outcome, Task

if TYPE_CHECKING:
    from torch import Tensor, nn


def run(task: Task, checkpoint: Checkpoint, asked: Asked) -> Outcome:
    """Bring a model to life and score it, one batch at a time.

    Raises:
        TaskError: the split is unknown or empty, or the model fails; the message names task and model.
    """
    task.check_split(asked.split)
    live = task.live(checkpoint)
    module = on_device(live.module, asked.device)
    who = f"task {task.name!r}, model {checkpoint.label}"
    batches = task.batches(asked.split, limit=asked.limit, batch_size=asked.batch_size)
    parts: list[Part] = []
    for part in scored(task, module, batches, asked.device, who):
        parts.append(part)
        if asked.progress is not None:
            asked.progress(len(part[0]))
    if not parts:
        raise TaskError(f"task {task.name!r}: the split {asked.split!r} has no examples.")
    return joined(parts)


Part: TypeAlias = tuple[tuple[int, ...], Any, Any]  # examples, scores, weights


def scored(task: Task, module: nn.Module, batches: Iterable[Batch], device: str, who: str) -> Iterator[Part]:
    """The scores of a module whose weights stay as they are, batch by batch.

    Raises:
        TaskError: the model fails; the message begins with `who`.
    """
    import torch

    with torch.inference_mode():
        score = guarded(lambda: task.scoring(module), who)
    for batch in batches:
        with torch.inference_mode():
            part = _scored(task, score, batch, device, who)
        yield part


def joined(parts: Sequence[Part]) -> Outcome:
    """The scores of batches as those of one, by the position in the split: sums depend on their order."""
    examples = [i for part in parts for i in part[0]]
    order = np.argsort(examples, kind="stable")
    values, weights = (np.concatenate([part[k] for part in parts])[order] for k in (1, 2))
    return Outcome(tuple(examples[i] for i in order), values, weights)


def on_device(module: Any, device: str) -> Any:
    """The module on a device.

    Raises:
        TaskError: it cannot run there.
    """
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise TaskError(f"the model cannot run on {device!r}: {' '.join(str(error).split())[:200]}") from error


def _scored(
    task: Task, score: Callable[[Batch], Tensor], batch: Batch, device: str, who: str
) -> tuple[tuple[int, ...], Any, Any]:
    found = guarded(lambda: score(batch.to(device)), who)
    weights = task.weights(batch)
    values, weighed = (np.asarray(one.detach().cpu(), np.float64) for one in (found, weights))
    if values.shape != (len(batch),):
        raise TaskError(f"{who}: scores must be one number an example, ({len(batch)},); got {values.shape}.")
    return batch.examples, values, weighed


def guarded(work: Callable[[], Any], who: str) -> Any:
    """Whatever a module raises becomes an error that names task and model."""
    try:
        return work()
    except TaskError as error:
        raise TaskError(f"{who}: {error}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        raise TaskError(f"{who}: the model fails: {said} ({type(error).__name__}).") from error
