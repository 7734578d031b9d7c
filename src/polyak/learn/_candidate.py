"""One set of merged weights shared by the modules of all tasks: from coefficients to loss and gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Mismatch, TaskError
from ._api import Granularity, Numbers
from ._objective import Objective
from ._pool import Pool

if TYPE_CHECKING:
    from torch import Tensor

    from ..tasks import Batch, LiveModel, Task


@dataclass(frozen=True)
class Slope:
    """Loss and gradient over some examples.

    Attributes:
        loss: The sum of the tasks' losses.
        per_task: The loss of each task.
        gradient: d loss / d coefficients, shaped like them.
        predictions: Per task, the number of examples (or positions) predicted as each class.
        tensors: <dL/dtheta_l, .> of base and deltas, (tensors, 1 + models), for either granularity.
        norms: ||dL/dtheta_l||, (tensors,).
    """

    loss: float
    per_task: tuple[float, ...]
    gradient: Numbers
    predictions: tuple[Numbers, ...]
    tensors: Numbers
    norms: Numbers


class Candidate:
    """The merged model during learning, as torch modules.

    The modules of all tasks share the memory of one body; each has its own head, which stays fixed.

    Attributes:
        pool: Base and experts.
        tasks: The tasks.
        rows: The tensors with gradients, in the order of the rows of coefficients.
        by_layer: True if each tensor has coefficients of its own.
    """

    def __init__(self, pool: Pool, tasks: Sequence[Task], *, granularity: Granularity, device: str = "cpu") -> None:
        self.pool, self.tasks, self._device = pool, tuple(tasks), device
        self.by_layer = granularity == "layer"
        self._lives = self._modules()
        tensors, parameters = self._lives[0].tensors, self._lives[0].parameters
        for name in pool.steps:
            if name not in tensors and not any(name in live.unused for live in self._lives):
                raise Mismatch(
                    f"task {tasks[0].name!r}: the module has no parameter or buffer {name!r}, which the models have."
                )
        self.rows = tuple(name for name in pool.steps if name in parameters)
        if not self.rows:
            raise Mismatch("no parameter of the tasks' modules is merged: there is nothing to learn.")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the coefficients: (tensors or 1, `width` of the pool)."""
        return (len(self.rows) if self.by_layer else 1, self.pool.width)

    @property
    def others(self) -> list[str]:
        """Merged tensors that have no gradient."""
        rows = set(self.rows)
        return [name for name in self.pool.steps if name not in rows]

    def put(self, coefficients: Numbers, others: Numbers) -> None:
        """Write the merge with these coefficients into the modules.

        Args:
            coefficients: (tensors or 1, models).
            others: (models,), for tensors without a gradient.
        """
        import torch

        tensors, at = self._lives[0].tensors, {name: i for i, name in enumerate(self.rows)}
        with torch.no_grad():
            for name in self.pool.steps:
                if name not in tensors:
                    continue
                weights = coefficients[at[name] if self.by_layer else 0] if name in at else others
                flat = tensors[name].detach().view(-1)
                for start, tile in self.pool.merged(name, weights):
                    flat[start : start + tile.size].copy_(torch.from_numpy(tile))

    def slope(self, batches: Sequence[Sequence[Batch]], objective: Objective, *, mean: bool = False) -> Slope:
        """Loss and gradient in the coefficients.

        Args:
            batches: Batches per task; all examples of a task count equally.
            objective: The objective per example.
            mean: Average over tasks instead of summing.

        Raises:
            TaskError: a loss is not finite.
        """
        total: dict[str, Tensor] = {}
        share = 1 / len(self.tasks) if mean else 1.0
        results = [self._of_task(i, batches[i], objective, share, total) for i in range(len(self.tasks)) if batches[i]]
        losses = tuple(loss for loss, _ in results)
        tensors, norms = self._products(total)
        gradient = tensors[:, 1:] if self.by_layer else tensors[:, 1:].sum(0, keepdims=True)
        return Slope(share * sum(losses), losses, gradient, tuple(counts for _, counts in results), tensors, norms)

    def loss(self, batches: Sequence[Sequence[Batch]], objective: Objective) -> float:
        """The mean over tasks of the mean over examples, without gradients."""
        import torch

        with torch.inference_mode():
            each = [self._mean(i, batches[i], objective) for i in range(len(self.tasks))]
        return float(np.mean(each))

    def _mean(self, number: int, batches: Sequence[Batch], objective: Objective) -> float:
        task, module = self.tasks[number], self._lives[number].module
        summed = sum(float(objective(task, module, batch.to(self._device))[0].sum()) for batch in batches)
        return self._finite(summed / sum(len(batch) for batch in batches), task)

    def _of_task(
        self, number: int, batches: Sequence[Batch], objective: Objective, share: float, total: dict[str, Tensor]
    ) -> tuple[float, Numbers]:
        """Add a task's gradients to `total` in place, so that only one set of gradients is in memory."""
        task, live = self.tasks[number], self._lives[number]
        parameters = {name: live.parameters[name] for name in self.rows}
        examples, loss, counts = sum(len(batch) for batch in batches), 0.0, np.zeros(1)
        for name, parameter in parameters.items():
            parameter.grad = total.get(name)
        for batch in batches:
            losses, predicted = objective(task, live.module, batch.to(self._device))
            part = losses.sum() / examples
            loss += self._finite(float(part.detach()), task)
            self._backward(share * part, task)
            counts = _added(counts, predicted)
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                total[name], parameter.grad = parameter.grad, None
        return loss, counts

    @staticmethod
    def _backward(loss: Tensor, task: Task) -> None:
        if not loss.requires_grad:
            raise TaskError(
                f"task {task.name!r}: its loss does not depend on the merged weights, so there is nothing to learn. "
                "Does the module detach what it computes, or run without gradients?"
            )
        try:
            loss.backward()
        except Exception as error:  # whatever a module raises
            message = " ".join(str(error).split())[:500]
            raise TaskError(
                f"task {task.name!r}: the model has no gradient: {message} ({type(error).__name__})."
            ) from error

    def _products(self, total: Mapping[str, Tensor]) -> tuple[Numbers, Numbers]:
        products, norms = np.zeros((len(self.rows), 1 + self.pool.width)), np.zeros(len(self.rows))
        for i, name in enumerate(self.rows):
            if name in total:  # parameters on which no loss depends have no gradient
                flat = total[name].detach().reshape(-1)
                products[i], norms[i] = self.pool.products(name, flat), float(flat.norm())
        if not np.isfinite(products).all():
            raise TaskError("the gradient is not finite; the models or the examples are broken.")
        return products, norms

    @staticmethod
    def _finite(loss: float, task: Task) -> float:
        if not np.isfinite(loss):
            raise TaskError(
                f"task {task.name!r}: the loss is {loss}. A model is broken, its logits overflow, or the learning "
                "rate is too high."
            )
        return loss

    def _modules(self) -> list[LiveModel]:
        from ..tasks import on_device

        lives = [task.live(self.pool.reference) for task in self.tasks]
        for live in lives:
            on_device(live.module, self._device)
            for parameter in live.module.parameters():
                parameter.requires_grad_(False)
        for task, live in zip(self.tasks[1:], lives[1:], strict=True):
            try:
                _check_same_names(live, lives[0])
                live.share(lives[0])
            except Mismatch as error:
                raise Mismatch(
                    f"the tasks {self.tasks[0].name!r} and {task.name!r} do not have the same body: {error} Heads stay "
                    "with their task: name them in its `heads: {match: ..., from: ...}`."
                ) from error
        for live in lives:
            for name, parameter in live.parameters.items():
                parameter.requires_grad_(name in self.pool.steps)
        return lives


def _check_same_names(live: LiveModel, first: LiveModel) -> None:
    """Sharing skips tensors that a task calls unused, which another task may use."""
    if lacking := sorted(first.tensors.keys() ^ live.tensors.keys()):
        raise Mismatch(f"only one of them has {lacking[0]!r}.")


def _added(first: Numbers, second: Numbers) -> Numbers:
    size = max(len(first), len(second))
    return np.pad(first, (0, size - len(first))) + np.pad(second, (0, size - len(second)))
