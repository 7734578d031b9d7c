"""Batches, requests for scores, and their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import TaskError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

Likelihood: TypeAlias = Literal["classification", "tokens", "language_model", "regression"]

SCORED = ("calibration", "validation", "test")  # for learning, model selection, and reporting
SPLITS = ("train", *SCORED)
IGNORED = -100  # a target that does not count


@dataclass(frozen=True)
class Batch:
    """Examples that go through a module together.

    Attributes:
        inputs: Keyword arguments of the module: tensors with the examples along their first axis.
        targets: Labels, in the shape of the task's likelihood; None if the task has none.
        examples: The position of each example in its split.
        mask: True at the positions of sequences that are not padding, (n, positions); None without sequences.
        extra: Other inputs of the task's scores.
    """

    inputs: Mapping[str, Any]
    targets: Tensor | None
    examples: tuple[int, ...]
    mask: Tensor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __len__(self) -> int:
        return len(self.examples)

    def to(self, device: str | Any) -> Batch:
        """The same examples on another device."""
        inputs, extra = (
            {name: _moved(value, device) for name, value in values.items()} for values in (self.inputs, self.extra)
        )
        targets, mask = _moved(self.targets, device), _moved(self.mask, device)
        return replace(self, inputs=inputs, targets=targets, mask=mask, extra=extra)


@dataclass(frozen=True)
class ScoreRequest:
    """The examples of a task to score, and the way to run them.

    Attributes:
        split: One of the task's splits.
        limit: Maximum number of examples, the first of the split.
        batch_size: Examples per batch.
        device: Device of the model, as torch names it.
        progress: Called with the number of examples just scored.

    Raises:
        TaskError: `limit` or `batch_size` is below 1.
    """

    split: str = "test"
    limit: int | None = None
    batch_size: int = 32
    device: str = "cpu"
    progress: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        for name, count in (("limit", self.limit), ("batch_size", self.batch_size)):
            if count is not None and count < 1:
                raise TaskError(f"{name} must be at least 1; got {count}.")


@dataclass(frozen=True)
class Outcome:
    """One score per example.

    Attributes:
        examples: The position of each example in its split.
        values: The scores, float64.
        weights: Weight of each in the mean, float64.
    """

    examples: tuple[int, ...]
    values: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value
