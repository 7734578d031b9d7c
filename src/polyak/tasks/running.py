"""Modules run on the batches of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from ..errors import TaskError
from ._batch import Batch, Outcome

if TYPE_CHECKING:
    from torch import Tensor, nn


# Scores, or scores and their weights in the mean, where these depend on the model.
Scoring: TypeAlias = "Tensor | tuple[Tensor, Tensor]"
Part: TypeAlias = tuple[tuple[int, ...], Any, Any]  # examples, scores, weights


class Scored(Protocol):
    """The methods of `Task` that scoring needs."""

    def scoring(self, module: nn.Module) -> Callable[[Batch], Scoring]: ...

    def weights(self, batch: Batch) -> Tensor: ...


def scored(task: Scored, module: nn.Module, batches: Iterable[Batch], device: str, who: str) -> Iterator[Part]:
    """Yield the scores of a module with fixed weights, batch by batch.

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
    """Concatenate the scores of batches in the order of the split, on which float sums depend."""
    examples = [i for part in parts for i in part[0]]
    order = np.argsort(examples, kind="stable")
    values, weights = (np.concatenate([part[k] for part in parts])[order] for k in (1, 2))
    return Outcome(tuple(examples[i] for i in order), values, weights)


def on_device(module: Any, device: str) -> Any:
    """Move a module to a device.

    Raises:
        TaskError: it cannot run there.
    """
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise TaskError(f"the model cannot run on {device!r}: {' '.join(str(error).split())[:200]}") from error


def _scored(
    task: Scored, score: Callable[[Batch], Scoring], batch: Batch, device: str, who: str
) -> tuple[tuple[int, ...], Any, Any]:
    result = guarded(lambda: score(batch.to(device)), who)
    scores, weights = result if isinstance(result, tuple) else (result, task.weights(batch))
    values, weighed = (np.asarray(tensor.detach().cpu(), np.float64) for tensor in (scores, weights))
    if values.shape != (len(batch),):
        raise TaskError(f"{who}: scores must be one number per example, ({len(batch)},); got {values.shape}.")
    return batch.examples, values, weighed


def guarded(work: Callable[[], Any], who: str) -> Any:
    """Call `work`; any exception becomes a TaskError that begins with `who`."""
    try:
        return work()
    except TaskError as error:
        raise TaskError(f"{who}: {error}") from error
    except Exception as error:
        message = " ".join(str(error).split())[:500]
        raise TaskError(f"{who}: the model fails: {message} ({type(error).__name__}).") from error
