"""Tasks: examples, the outputs of a module for them, and one score per example.

Training, statistics, learning and evaluation run models through this interface only. The splits of a task share no
example: weights are trained on `train`, coefficients learned on `calibration`, both chosen on `validation`, and
reported on `test`.

    live = task.live(checkpoint)                        # a module, its parameters named like the checkpoint's tensors
    for batch in task.batches("calibration", limit=256):
        task.losses(live.module, batch).mean().backward()
    live.parameters["encoder.layer.0.weight"].grad      # by the tensor's name in the checkpoint

The shape of the outputs follows from the task's `likelihood`:

    classification   outputs (n, classes)                targets (n,) of integers
    tokens           outputs (n, positions, classes)     targets (n, positions)
    language_model   outputs (n, positions, vocabulary)  targets (n, positions): the next token, already shifted
    regression       outputs (n, k)                      targets (n, k) of floats
    None             anything that the task's own `losses` and `scores` accept

A target of `IGNORED` does not count: padding, prompts, tokens of a word after its first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import TaskError, suggestion
from ._batch import SCORED, Batch, Likelihood, Outcome, ScoreRequest
from .likelihood import negative_log_likelihood
from .running import Part, Scoring, joined, on_device, scored

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from ..checkpoint import Checkpoint
    from ..modules import LiveModel


class Scorer(ABC):
    """Source of one score per example: a task, another library's benchmark, or a function of a checkpoint.

    Attributes:
        name: Its name in reports.
        metric: Name of the metric, such as `accuracy`.
        higher_is_better: True if a larger metric is better.
        splits: Its splits, a subset of `SPLITS`, by default without `train`; no two share an example.
        split_help: The remedy for a missing split, in error messages.
        notes: Messages for the user, such as the number of examples dropped because they are in two splits.
    """

    name: str
    metric: str
    higher_is_better: bool = True
    splits: tuple[str, ...] = SCORED
    split_help: str = (
        "Training, calibration, validation and test examples are kept apart: give each its own data, or fractions of "
        "one file."
    )
    notes: tuple[str, ...] = ()

    @abstractmethod
    def score(self, checkpoint: Checkpoint, request: ScoreRequest) -> Outcome:
        """The scores of a model.

        Raises:
            TaskError: the split is unknown or empty, or the model cannot run the task.
        """

    @abstractmethod
    def digest(self, split: str) -> str:
        """Hexadecimal digest of the examples of a split and of every setting that the scores depend on."""

    def count(self, split: str) -> int | None:
        """Number of examples in a split; None if unknown before they are scored."""
        return None

    def summarise(self, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The metric from the weighted mean of the scores, entry by entry: the mean itself unless overridden."""
        return mean

    def majority(self, split: str, examples: Sequence[int]) -> float | None:
        """The metric of always giving the most frequent answer of these examples; None if that has no meaning."""
        return None

    def check_split(self, split: str) -> None:
        """Refuse a split that the task does not have.

        Raises:
            TaskError: the message lists the task's splits.
        """
        if split not in self.splits:
            raise TaskError(
                f"task {self.name!r} has no split {split!r}. {suggestion(split, self.splits)} {self.split_help}"
            )


class Task(Scorer):
    """Examples in splits, and the code that runs and scores a torch module on them.

    Attributes:
        likelihood: Distribution that the outputs parametrise; None if there is none.
    """

    likelihood: Likelihood | None = None

    def score(self, checkpoint: Checkpoint, request: ScoreRequest) -> Outcome:
        """Load the model into a module and score it, one batch at a time.

        Raises:
            TaskError: the split is unknown or empty, or the model fails; the message names task and model.
        """
        self.check_split(request.split)
        module = on_device(self.live(checkpoint).module, request.device)
        batches = self.batches(request.split, limit=request.limit, batch_size=request.batch_size)
        parts: list[Part] = []
        for part in scored(self, module, batches, request.device, f"task {self.name!r}, model {checkpoint.label}"):
            parts.append(part)
            if request.progress is not None:
                request.progress(len(part[0]))
        if not parts:
            raise TaskError(f"task {self.name!r}: the split {request.split!r} has no examples.")
        return joined(parts)

    @abstractmethod
    def count(self, split: str) -> int:
        """Number of examples in a split."""

    @abstractmethod
    def batches(
        self, split: str, *, limit: int | None = None, batch_size: int = 32, seed: int | None = None
    ) -> Iterable[Batch]:
        """The examples of a split, each once.

        Args:
            split: One of `splits`.
            limit: Maximum number of examples: the first, or a random choice where a seed is given.
            batch_size: Maximum number of examples per batch.
            seed: Shuffles; None keeps the order of the data, except that sequences of similar length may be batched
                together. With a limit as well, the choice is random but not the order.

        Raises:
            TaskError: there is no such split, or it is empty.
        """

    def batch(self, split: str, examples: Sequence[int]) -> Batch:
        """Some examples of a split, by their positions, as one batch: for loops that draw examples in their own order.

        Raises:
            TaskError: there is no such split, or the task only gives `batches`.
        """
        raise TaskError(
            f"task {self.name!r} cannot be trained on: {type(self).__name__} has no method `batch`, which returns "
            "examples by their positions."
        )

    @abstractmethod
    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        """Outputs of the module, in the shape of the likelihood; differentiable in the module's parameters."""

    def losses(self, module: nn.Module, batch: Batch) -> Tensor:
        """One differentiable loss per example, (n,); lower is better.

        Negative log-likelihood of the targets, averaged over the positions that count.
        """
        return self.losses_of(self.outputs(module, batch), batch)

    def losses_of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The same, from outputs that are already computed.

        Raises:
            TaskError: the task has no likelihood, or the batch no targets.
        """
        if self.likelihood is None or batch.targets is None:
            lacking = "likelihood" if self.likelihood is None else "labels"
            raise TaskError(f"task {self.name!r} has no {lacking}, so it has no losses.")
        return negative_log_likelihood(self.likelihood, outputs, batch.targets, per="position")

    @abstractmethod
    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        """One score per example, (n,), whose weighted mean is the metric (or what `summarise` turns into it)."""

    def scoring(self, module: nn.Module) -> Callable[[Batch], Scoring]:
        """`scores` of a module with fixed weights, so that work shared by all batches is done once.

        It may return scores and weights, where the weights depend on the model.
        """
        return lambda batch: self.scores(module, batch)

    def weights(self, batch: Batch) -> Tensor:
        """Weight of each example in the mean, (n,): 1, or its number of words where words are scored."""
        import torch

        return torch.ones(len(batch))

    @abstractmethod
    def live(self, checkpoint: Checkpoint) -> LiveModel:
        """Load a checkpoint into a module that this task can run, with the task's own head if it has one.

        Raises:
            TaskError: a parameter corresponds to no tensor, or a tensor to no parameter.
        """
