"""The objective of learning: one differentiable number per example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..errors import PolyakError, TaskError
from ._api import Numbers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks import Batch, Task

Kind: TypeAlias = Literal["entropy", "loss"]


@dataclass(frozen=True)
class Objective:
    """Entropy of the predictions, which needs no labels, or the task's loss, which does.

    Attributes:
        kind: `entropy` or `loss`.
        epsilon: Added to probabilities before their logarithm.
    """

    kind: Kind
    epsilon: float = 0.0

    def __call__(self, task: Task, module: nn.Module, batch: Batch) -> tuple[Tensor, Numbers]:
        """One number per example, (n,), and the number of predictions per class.

        Raises:
            TaskError: the task has no labels, or its predictions have no entropy.
        """
        try:
            outputs = task.outputs(module, batch)
            if self.kind == "loss":
                return task.losses_of(outputs, batch), np.zeros(1)
            return self._entropy(task, outputs, batch)
        except TaskError as error:
            raise error if repr(task.name) in str(error) else TaskError(f"task {task.name!r}: {error}") from error
        except PolyakError:
            raise
        except Exception as error:  # whatever a module raises
            message = " ".join(str(error).split())[:500]
            raise TaskError(f"task {task.name!r}: the model fails: {message} ({type(error).__name__}).") from error

    def _entropy(self, task: Task, outputs: Tensor, batch: Batch) -> tuple[Tensor, Numbers]:
        if task.likelihood not in ("classification", "tokens", "language_model") or outputs.shape[-1] < 2:
            raise TaskError(
                f"task {task.name!r} does not predict a distribution over two or more classes, so it has no entropy. "
                "Use `objective=loss`."
            )
        logs = outputs.float().log_softmax(-1)
        entries = -(logs.exp() * ((logs.exp() + self.epsilon).log() if self.epsilon else logs)).sum(-1)
        counts = _counting(task, batch, entries)
        classes = outputs.detach().argmax(-1)[counts > 0].cpu().numpy()
        each = (
            (entries * counts).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)
            if entries.ndim > 1
            else entries
        )
        return each, np.bincount(classes.reshape(-1), minlength=outputs.shape[-1]).astype(np.float64)


def _counting(task: Task, batch: Batch, entries: Tensor) -> Tensor:
    """1 at positions with a target, or without targets at those that are not padding; 0 elsewhere."""
    import torch

    from ..tasks import IGNORED

    if entries.ndim == 1:
        return torch.ones_like(entries)
    if batch.targets is not None:
        return (batch.targets != IGNORED).to(entries.dtype)
    return torch.ones_like(entries) if batch.mask is None else batch.mask.to(entries.dtype)


def check_use(kind: Kind, split: str) -> None:
    """Refuse to learn from labels of the test split.

    Raises:
        TaskError: the objective needs labels and the split is `test`.
    """
    if kind == "loss" and split == "test":
        raise TaskError(
            "learning from the labels of the test split would bias the scores on it. Use `split=calibration`."
        )


def is_transductive(split: str) -> bool:
    """True if test inputs were learned from."""
    return split == "test"
