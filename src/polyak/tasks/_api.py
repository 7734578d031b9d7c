"""What a task is: examples, what a module says of them, and one number an example.

Statistics, learning and evaluation meet models only here.  A task keeps its examples in splits that have no example
in common: coefficients are learned on `calibration`, chosen on `validation`, and reported on `test`.

    live = task.live(checkpoint)                        # a module, and which tensor is which of its parameters
    for batch in task.batches("calibration", limit=256):
        task.losses(live.module, batch).mean().backward()
    live.parameters["encoder.layer.0.weight"].grad      # by the name that the tensor has in the checkpoint

What a module says of examples is shaped by the task's `likelihood`:

    classification   outputs (n, classes)                targets (n,) of whole numbers
    tokens           outputs (n, positions, classes)     targets (n, positions)
    language_model   outputs (n, positions, vocabulary)  targets (n, positions): what comes next, already shifted
    regression       outputs (n, k)                      targets (n, k) of floats
    None             whatever the task's own `losses` and `scores` understand

A target of `IGNORED` does not count: padding, prompts, pieces of words after the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import TaskError, suggestion

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from ..checkpoint import Checkpoint
    from ..modules.live import LiveModel

Likelihood: TypeAlias = Literal["classification", "tokens", "language_model", "regression"]

SPLITS = ("calibration", "validation", "test")  # what is learned on, what is chosen on, what is reported on
IGNORED = -100  # a target that does not count


@dataclass(frozen=True)
class Batch:
    """Examples that go through a module together.

    Attributes:
        inputs: What the module is called with, by keyword: tensors with the examples along their first axis.
        targets: What is wanted, shaped as the task's likelihood says; None if the task has no labels.
        examples: The position of each example in its split.
        mask: Which positions of sequences are not padding, (n, positions) of bool; None if there are no sequences.
        extra: What else the task's scores need.
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
class Asked:
    """Which examples of a task, and how they are run.

    Attributes:
        split: One of the task's.
        limit: At most so many, the first of the split.
        batch_size: Examples that go through the model together.
        device: Where the model runs, as torch names it.
        progress: Told how many more examples are done.
    """

    split: str = "test"
    limit: int | None = None
    batch_size: int = 32
    device: str = "cpu"
    progress: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """One number an example.

    Attributes:
        examples: The position of each example in its split.
        values: The scores, float64.
        weights: How much each counts, float64.
    """

    examples: tuple[int, ...]
    values: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


class Scorer(ABC):
    """Whatever gives a model one number an example: a task, another library's benchmark, a function of a checkpoint.

    Attributes:
        name: What reports call it.
        metric: What the score is, such as `accuracy`.
        higher_is_better: Whether more of the metric is better.
        splits: The splits that it has, of `SPLITS`; no two have an example in common.
        notes: What the user should know, such as examples that were dropped because two splits had them.
    """

    name: str
    metric: str
    higher_is_better: bool = True
    splits: tuple[str, ...] = SPLITS
    notes: tuple[str, ...] = ()

    @abstractmethod
    def score(self, checkpoint: Checkpoint, asked: Asked) -> Outcome:
        """The numbers of a model.

        Raises:
            TaskError: the split is unknown or empty, or the model cannot do the task.
        """

    @abstractmethod
    def digest(self, split: str) -> str:
        """Hexadecimal digest of the examples of a split and of every setting that the scores depend on."""

    def count(self, split: str) -> int | None:
        """How many examples a split has; None if that is not known before they are scored."""
        return None

    def summarise(self, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The metric from the weighted mean of the scores, entry by entry: the mean itself unless overridden."""
        return mean

    def check_split(self, split: str) -> None:
        """Refuse a split that is not there.

        Raises:
            TaskError: with those that are.
        """
        if split not in self.splits:
            raise TaskError(
                f"task {self.name!r} has no split {split!r}. {suggestion(split, self.splits)} Calibration, validation "
                "and test examples are kept apart: give each its own data, or fractions of one file."
            )


class Task(Scorer):
    """Examples in splits, and how a torch module is run and scored on them.

    Attributes:
        likelihood: What the outputs mean; None if they are no parameters of a distribution.
    """

    likelihood: Likelihood | None = None

    def score(self, checkpoint: Checkpoint, asked: Asked) -> Outcome:
        from .running import run

        return run(self, checkpoint, asked)

    @abstractmethod
    def count(self, split: str) -> int:
        """How many examples a split has."""

    @abstractmethod
    def batches(
        self, split: str, *, limit: int | None = None, batch_size: int = 32, seed: int | None = None
    ) -> Iterable[Batch]:
        """The examples of a split, each once.

        Args:
            split: One of `splits`.
            limit: At most so many examples: the first, or a random choice of them where a seed is given.
            batch_size: Examples that go together, at most.
            seed: Shuffles; None keeps the order of the data, but sequences of similar length may go together. They may
                too where there is a limit as well: then the choice is random, and not the order.

        Raises:
            TaskError: there is no such split, or it is empty.
        """

    @abstractmethod
    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        """What the module says, shaped as the likelihood says; differentiable in the module's parameters."""

    def losses(self, module: nn.Module, batch: Batch) -> Tensor:
        """One differentiable number an example, (n,); lower is better.

        Negative log-likelihood of the targets, averaged over the positions that count.
        """
        return self.losses_of(self.outputs(module, batch), batch)

    def losses_of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """As `losses`, from outputs that are there already.

        Raises:
            TaskError: the task has no likelihood, or the batch no targets.
        """
        from .likelihood import negative_log_likelihood

        if self.likelihood is None or batch.targets is None:
            lacking = "likelihood" if self.likelihood is None else "labels"
            raise TaskError(f"task {self.name!r} has no {lacking}, so it has no losses.")
        return negative_log_likelihood(self.likelihood, outputs, batch.targets, per="position")

    @abstractmethod
    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        """One number an example, (n,), whose weighted mean is the metric (or what `summarise` makes the metric of)."""

    def scoring(self, module: nn.Module) -> Callable[[Batch], Tensor]:
        """`scores` of a module whose weights stay as they are, so that what all batches share is computed once."""
        return lambda batch: self.scores(module, batch)

    def weights(self, batch: Batch) -> Tensor:
        """How much each example counts in the mean, (n,): 1, or the number of its words where words are scored."""
        import torch

        return torch.ones(len(batch))

    @abstractmethod
    def live(self, checkpoint: Checkpoint) -> LiveModel:
        """The model in a checkpoint as a module that this task can run, with the task's own head if it has one.

        Raises:
            TaskError: a parameter is filled by no tensor as it is, or a tensor fills no parameter.
        """


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value
