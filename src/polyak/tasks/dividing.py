"""Splits for tasks that have test examples only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import TaskError, suggestion
from ._batch import SPLITS, Outcome, ScoreRequest
from ._task import Scorer


class Divided(Scorer):
    """The test examples of another scorer, divided among splits.

    A hash of its position decides the split of an example, so that it depends on nothing but position and fractions.
    All examples are scored for each split; a task that can score a split alone is faster.

    Args of the constructor:
        scorer: A scorer with test examples.
        fractions: Share of each split; they add up to at most 1.

    Raises:
        TaskError: a split is unknown, a fraction is out of range, or they add up to more than 1.
    """

    split_help = "Give it a fraction of the examples, such as by `,validation=0.5` after the task."

    def __init__(self, scorer: Scorer, fractions: Mapping[str, float]) -> None:
        self.scorer, self.name, self.metric = scorer, scorer.name, scorer.metric
        self.higher_is_better, self.notes = scorer.higher_is_better, scorer.notes
        _check(self.name, fractions)
        self.splits = tuple(split for split in SPLITS if split in fractions)
        self._fractions = {split: float(fractions[split]) for split in self.splits}

    def score(self, checkpoint: Checkpoint, request: ScoreRequest) -> Outcome:
        self.check_split(request.split)
        outcome = self.scorer.score(checkpoint, replace(request, split="test", limit=None))
        self.metric = self.scorer.metric  # a benchmark may know its metric only after it has run
        chosen = [i for i, example in enumerate(outcome.examples) if self._split_of(example) == request.split]
        chosen = chosen[: request.limit]
        if not chosen:
            raise TaskError(
                f"task {self.name!r} has {len(outcome.examples)} examples, too few for the split {request.split!r} to "
                "have any. Give it a larger fraction."
            )
        return Outcome(tuple(outcome.examples[i] for i in chosen), outcome.values[chosen], outcome.weights[chosen])

    def digest(self, split: str) -> str:
        import xxhash

        self.check_split(split)
        return xxhash.xxh3_128_hexdigest(f"{self.scorer.digest('test')} {self._fractions} {split}".encode())

    def summarise(self, mean: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
        return self.scorer.summarise(mean)

    def majority(self, split: str, examples: Sequence[int]) -> float | None:
        return self.scorer.majority("test", examples)

    def _split_of(self, example: int) -> str:
        import xxhash

        position, end = xxhash.xxh3_64_intdigest(example.to_bytes(8, "little")) / 2**64, 0.0
        for split, fraction in self._fractions.items():
            end += fraction
            if position < end:
                return split
        return ""


def _check(name: str, fractions: Mapping[str, float]) -> None:
    for split, fraction in fractions.items():
        if split not in SPLITS:
            raise TaskError(f"task {name!r}: unknown split {split!r}. {suggestion(split, SPLITS)}")
        if not 0 < fraction <= 1:
            raise TaskError(
                f"task {name!r}: the fraction of {split!r} must be above 0 and at most 1; got {fraction:g}."
            )
    if sum(fractions.values()) > 1 + 1e-9:
        raise TaskError(f"task {name!r}: the fractions add up to {sum(fractions.values()):g}; at most 1 is possible.")
