"""Gradient descent on coefficients, by torch's optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._api import Log, Numbers
from ._candidate import Candidate
from ._collapse import Collapse
from ._objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from ..tasks import Batch


@dataclass
class Descent:
    """Parts and settings of a gradient descent.

    Attributes:
        candidate: The merged model.
        objective: The objective to minimise.
        coefficients: From the optimiser's parameters to coefficients; torch, differentiable.
        others: Coefficients of tensors without a gradient; those of the shared row if None.
        mean: Average over tasks instead of summing.
        log: Called with every step.
    """

    candidate: Candidate
    objective: Objective
    coefficients: Callable[[Tensor], Tensor]
    others: Numbers | None
    mean: bool
    log: Log

    def run(
        self,
        raw: Tensor,
        optimiser: Any,
        batches: Iterator[Sequence[Sequence[Batch]]],
        steps: int,
        schedule: Any = None,
    ) -> tuple[Numbers, dict[str, Any], list[str]]:
        """Descend.

        Returns:
            The coefficients, decisions for the provenance, and notes.
        """
        watch = Collapse([task.name for task in self.candidate.tasks])
        healthy, losses, notes = _numbers(self.coefficients(raw)), list[float](), list[str]()
        for step in range(steps):
            weights = self.coefficients(raw)
            now = _numbers(weights)
            slope = self._slope(now, next(batches))
            losses.append(slope.loss)
            self.log({"step": step, "loss": slope.loss, "losses": slope.per_task, "coefficients": now.tolist()})
            if self.objective.kind == "entropy" and (name := watch.update(slope.predictions)):
                notes.append(_collapse_note(name, step))
                return healthy, _summary(losses, stopped="collapse"), notes
            if watch.is_healthy:
                healthy = now
            self._advance(raw, weights, slope.gradient, optimiser)
            if schedule is not None:
                schedule.step()
        entropic = self.objective.kind == "entropy"
        notes += [
            f"task {name!r}: every prediction was one class from the first step"
            for name in watch.always_one
            if entropic
        ]
        return _numbers(self.coefficients(raw)), _summary(losses, stopped=""), notes

    def _slope(self, now: Numbers, batches: Sequence[Sequence[Batch]]) -> Any:
        self.candidate.put(now, now[0] if self.others is None else self.others)
        return self.candidate.slope(batches, self.objective, mean=self.mean)

    @staticmethod
    def _advance(raw: Tensor, weights: Tensor, gradient: Numbers, optimiser: Any) -> None:
        import torch

        optimiser.zero_grad()
        weights.backward(torch.as_tensor(gradient, dtype=weights.dtype))
        optimiser.step()


def _numbers(weights: Tensor) -> Numbers:
    return np.array(weights.detach().numpy(), np.float64)


def _summary(losses: Sequence[float], *, stopped: str) -> dict[str, Any]:
    summary: dict[str, Any] = {"steps": len(losses)}
    if losses:
        summary |= {"first_loss": losses[0], "last_loss": losses[-1]}
    return summary | ({"stopped": stopped} if stopped else {})


def _collapse_note(name: str, step: int) -> str:
    return (
        f"stopped at step {step}: the predictions on task {name!r} have collapsed to nearly one class, which "
        "makes entropy small and the model useless. The coefficients are those before the collapse. Lower `lr`, or "
        "learn from labels: `objective=loss`"
    )
