"""A task of several languages: each step sees a batch of each, and its loss is the mean of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...tasks import Batch, Task
from .._setup import TRAIN

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...checkpoint import Checkpoint
    from ...modules import LiveModel

SOURCE = "source"


class Mixed(Task):
    """The source's task, whose training batches also have examples of the target languages.

    An epoch sees each example of the source once; the few of a target are repeated.

    Args of the constructor:
        source: The task of the source language.
        targets: The tasks of the target languages, by language, which have a split `train`.
        shots: Number of training examples of each target.
        seed: Seed of their choice.
    """

    def __init__(self, source: Task, targets: Mapping[str, Task], *, shots: int, seed: int) -> None:
        self.name, self.metric, self.splits = source.name, source.metric, source.splits
        self.higher_is_better = source.higher_is_better
        self.source, self.targets = source, targets
        self._shots = {language: shots_of(task, shots, seed) for language, task in targets.items()}
        self._watched = ""
        self._oracle: dict[nn.Parameter, Tensor] = {}

    def watch(self, language: str) -> None:
        """Measure the gradient of one language's loss separately from that of all, from 0."""
        self._watched, self._oracle = language, {}

    def watched(self, module: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        """The trained parameters and their gradients for the watched language."""
        return [(parameter, self._oracle[parameter]) for parameter in module.parameters() if parameter in self._oracle]

    def count(self, split: str) -> int:
        return self.source.count(split)

    def digest(self, split: str) -> str:
        return self.source.digest(split)

    def batches(
        self, split: str, *, limit: int | None = None, batch_size: int = 32, seed: int | None = None
    ) -> Iterable[Batch]:
        return self.source.batches(split, limit=limit, batch_size=batch_size, seed=seed)

    def batch(self, split: str, examples: Sequence[int]) -> Batch:
        """One batch per language, of equal size, as `extra`."""
        parts = {SOURCE: self.source.batch(split, examples)}
        for language, task in self.targets.items():
            own = self._shots[language]
            parts[language] = task.batch(TRAIN, [own[i % len(own)] for i in examples])
        return Batch({}, None, tuple(examples), extra=parts)

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        return self.source.outputs(module, batch)

    def losses(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of each language, (languages,): their mean is that of the step."""
        import torch

        parts: Mapping[str, Batch] = batch.extra
        means = {
            language: (self.source if language == SOURCE else self.targets[language]).losses(module, part).mean()
            for language, part in parts.items()
        }
        if self._watched and torch.is_grad_enabled():
            self._measure(module, means[self._watched])
        return torch.stack(list(means.values()))

    def _measure(self, module: nn.Module, loss: Tensor) -> None:
        import torch

        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, trained, retain_graph=True, materialize_grads=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            self._oracle[parameter] = self._oracle.get(parameter, 0) + gradient

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        return self.source.scores(module, batch)

    def live(self, checkpoint: Checkpoint) -> LiveModel:
        return self.source.live(checkpoint)


def shots_of(task: Task, shots: int, seed: int) -> list[int]:
    """The positions of a number of training examples, drawn without repetition; all if there are no more."""
    return np.random.default_rng(seed).permutation(task.count(TRAIN))[:shots].tolist()


class Shots(Mixed):
    """The task of one target language whose training examples are a few."""

    def __init__(self, language: str, task: Task, *, shots: int, seed: int) -> None:
        super().__init__(task, {}, shots=shots, seed=seed)
        self.language, self._own = language, shots_of(task, shots, seed)

    def count(self, split: str) -> int:
        return len(self._own) if split == TRAIN else super().count(split)

    def batch(self, split: str, examples: Sequence[int]) -> Batch:
        chosen = [self._own[i] for i in examples] if split == TRAIN else examples
        return Batch({}, None, tuple(examples), extra={SOURCE: self.source.batch(split, chosen)})
