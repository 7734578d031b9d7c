"""The best value of an average so far, by a metric of the training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import Mismatch, SettingError
from ..choosing import is_higher_better

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ._kept import Kept


@dataclass(frozen=True)
class Best:
    """Keep the best value of an average by a metric; it is read like an average.

    Attributes:
        average: Name of the average.
        metric: Name of the metric, as `Averager.note` gets it.
        higher_is_better: Direction of the metric; None to take it from the name.
        name: Its name in the averager (default: the average's, with `best-` before it).
    """

    average: str
    metric: str
    higher_is_better: bool | None = None
    name: str = ""

    @property
    def key(self) -> str:
        """The name under which it is read."""
        return self.name or f"best-{self.average}"


class Tracker:
    """The best value of an average so far, on the device and in the dtype of the average.

    Attributes:
        best: Its declaration.
        kept: The average.
        score: The best metric; None before the first.
        step: Training steps at that time, since the start of averaging.
        updates: Updates of the average at that time.
        tensors: The average then; one copy of the weights.
        is_higher: True if higher metrics are better.
    """

    def __init__(self, best: Best, kept: Kept) -> None:
        self.best, self.kept = best, kept
        self.is_higher = is_higher_better(best.metric, best.higher_is_better)
        self.score: float | None = None
        self.step = self.updates = 0
        self.tensors: list[Tensor] = []

    def improves(self, metrics: Mapping[str, float]) -> bool:
        """True if the metric is among these, finite, and better than before; ties keep the earlier."""
        value = metrics.get(self.best.metric)
        if value is None or not math.isfinite(value):
            return False
        return self.score is None or (value > self.score if self.is_higher else value < self.score)

    def keep(self, metrics: Mapping[str, float], step: int, weights: Sequence[Tensor]) -> None:
        """Take the average as it is now, if a metric is the best so far and the average has had an update.

        Args:
            metrics: Metrics by name.
            step: Training steps since the start of averaging.
            weights: The weights of the model.
        """
        if not self.kept.updates or not self.improves(metrics):
            return
        mix = self.kept.coefficients(step, {})
        if not self.tensors:
            self.tensors = self.kept.like(weights)
        for i, (tensor, weight) in enumerate(zip(self.tensors, weights, strict=True)):
            tensor.copy_(self.kept.value(i, mix, weight))
        self.score, self.step, self.updates = float(metrics[self.best.metric]), step, self.kept.updates

    def coefficients(self, step: int, options: Mapping[str, Any]) -> dict[int, float]:
        """The value as a linear combination of its one copy.

        Raises:
            Mismatch: there was no metric yet.
            SettingError: an option.
        """
        if options:
            raise SettingError(f"the best average {self.best.key!r} is read as it was kept; got {dict(options)}.")
        if self.score is None:
            raise Mismatch(
                f"no metric {self.best.metric!r} has been noted for {self.best.key!r}. Call "
                f"`averager.note({{{self.best.metric!r}: ...}})` after an evaluation of the average."
            )
        return {0: 1.0}

    def value(self, index: int, mix: Mapping[int, float], live: Tensor) -> Tensor:
        """One tensor of it."""
        return self.tensors[index]

    def dtype_of(self, weight: Tensor) -> torch.dtype:
        """The dtype in which a tensor is kept."""
        return self.kept.dtype_of(weight)

    def facts(self, step: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data for the provenance."""
        return {
            "name": self.best.key,
            "best_of": self.best.average,
            "metric": self.best.metric,
            "value": self.score,
            "step": self.step,
            "updates": self.updates,
        }
