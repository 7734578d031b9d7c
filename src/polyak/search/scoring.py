"""Scores of candidates on tasks, on growing shares of their examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from ..errors import TaskError, suggestion
from ..tasks import (
    Batch,
    LiveModel,
    Outcome,
    Part,
    Scorer,
    ScoreRequest,
    Task,
    joined,
    on_device,
    scored,
    summary,
)
from .candidates import Candidates

Direction: TypeAlias = Literal["maximize", "minimize"]
SHARES = (0.25, 0.5, 1.0)  # of the batches of each task, after which a candidate may be pruned


@dataclass(frozen=True)
class Examples:
    """The examples that candidates are scored on.

    Attributes:
        split: Calibration or validation.
        limit: Use at most the first N per task.
        batch_size: Examples per batch.
        device: Device to run the model on, as torch names it.
        seed: Seed of the order of batches, which matters to pruning.
    """

    split: str = "validation"
    limit: int | None = None
    batch_size: int = 32
    device: str = "cpu"
    seed: int = 0


class Scoring:
    """Scores candidates on tasks.

    Raises:
        TaskError: no task is given, two have the same name, one lacks the split, or the split is `test`.
    """

    def __init__(self, tasks: Sequence[Scorer], examples: Examples) -> None:
        names = [task.name for task in tasks]
        if not names:
            raise TaskError("a search needs at least one task to score on.")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise TaskError(f"two tasks are named {twice!r}. Give one of them another `name:`.")
        if examples.split == "test":
            raise TaskError("a search scores on `validation` or `calibration`; the test split is for its report.")
        for task in tasks:
            task.check_split(examples.split)
        self.tasks, self._examples = tuple(tasks), examples
        self._live: dict[str, LiveModel] = {}
        self._batches: dict[str, list[Batch]] = {}

    @property
    def digests(self) -> dict[str, str]:
        """Digests of each task's examples and settings."""
        return {task.name: task.digest(self._examples.split) for task in self.tasks}

    def bring_to_life(self, candidates: Candidates, label: str) -> None:
        """Build the modules of the tasks from the first merged candidate, once."""
        for task in self.tasks:
            if isinstance(task, Task) and task.name not in self._live:
                live = task.live(candidates.checkpoint(label))
                on_device(live.module, self._examples.device)
                candidates.join(live)
                self._live[task.name] = live

    def score(self, candidates: Candidates, label: str, *, gradually: bool) -> Iterator[tuple[float, dict[str, float]]]:
        """Yield shares of the examples with the metrics on them: all, or if `gradually` a quarter and a half first.

        Raises:
            TaskError: the model fails on a task, or a score is not finite.
        """
        parts: dict[str, list[Part]] = {task.name: [] for task in self.tasks}
        scorers = {task.name: self._parts(task, label) for task in self.tasks if isinstance(task, Task)}
        for share in SHARES if gradually else (1.0,):
            metrics: dict[str, float] = {}
            for task in self.tasks:
                if isinstance(task, Task):
                    count = max(round(share * len(self._batches[task.name])), 1)
                    parts[task.name] += [next(scorers[task.name]) for _ in range(count - len(parts[task.name]))]
                    outcome = joined(parts[task.name])
                else:
                    outcome = self._whole(task, candidates, label)
                metrics[task.name] = _metric(task, outcome, label)
            yield share, metrics

    def _parts(self, task: Task, label: str) -> Iterator[Part]:
        examples = self._examples
        if task.name not in self._batches:
            batches = list(task.batches(examples.split, limit=examples.limit, batch_size=examples.batch_size))
            if not batches:
                raise TaskError(f"task {task.name!r}: the split {examples.split!r} has no examples.")
            order = np.random.default_rng(examples.seed).permutation(len(batches))
            self._batches[task.name] = [batches[i] for i in order]
        who = f"task {task.name!r}, {label}"
        return scored(task, self._live[task.name].module, self._batches[task.name], examples.device, who)

    def _whole(self, task: Scorer, candidates: Candidates, label: str) -> Outcome:
        how = self._examples
        request = ScoreRequest(how.split, how.limit, how.batch_size, how.device)
        return task.score(candidates.checkpoint(label), request)


def _metric(task: Scorer, outcome: Outcome, label: str) -> float:
    value = summary(task, outcome.values, outcome.weights)
    if not np.isfinite(outcome.values).all() or not np.isfinite(value):
        raise TaskError(f"task {task.name!r}: {label} has scores that are not finite, so it has no {task.metric}.")
    return value


@dataclass(frozen=True)
class Objective:
    """The objectives of a search, from the metrics of its tasks.

    Attributes:
        kind: The `mean` of the metrics, or `each` as an objective.
        tasks: The tasks.
        experts: Scores of the tasks' experts, by which metrics are divided.

    Raises:
        TaskError: unknown kind, or a mean of metrics with different directions.
    """

    kind: str
    tasks: tuple[Scorer, ...]
    experts: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.kind not in ("mean", "each"):
            raise TaskError(f"unknown objective {self.kind!r}. {suggestion(self.kind, ('mean', 'each'))}")
        names = [task.name for task in self.tasks]
        for name, value in self.experts.items():
            if name not in names:
                raise TaskError(
                    f"an expert is given for {name!r}, which is not a task of this search. {suggestion(name, names)}"
                )
            if value <= 0:
                raise TaskError(f"the expert of {name!r} scores {value}, so metrics cannot be divided by it.")
        bare = [task for task in self.tasks if task.name not in self.experts]
        mixed = len({task.higher_is_better for task in bare}) > 1 or (bare and self.experts)
        if self.kind == "mean" and mixed:
            raise TaskError(
                "the tasks' metrics cannot be averaged: they have different directions, or only some have experts. "
                "Give an expert for every task, or use the objective `each`."
            )

    @property
    def names(self) -> list[str]:
        """Names of the objectives."""
        return ["mean"] if self.kind == "mean" else [task.name for task in self.tasks]

    @property
    def directions(self) -> list[Direction]:
        """`maximize` or `minimize`, per objective."""
        better = [task.higher_is_better or task.name in self.experts for task in self.tasks]
        each: list[Direction] = ["maximize" if is_higher_better else "minimize" for is_higher_better in better]
        return each[:1] if self.kind == "mean" else each

    def of(self, metrics: Mapping[str, float]) -> list[float]:
        """The objectives' values."""
        each = [self._relative(task, metrics[task.name]) for task in self.tasks]
        return [float(np.mean(each))] if self.kind == "mean" else each

    def _relative(self, task: Scorer, value: float) -> float:
        expert = self.experts.get(task.name)
        if expert is None:
            return value
        if not task.higher_is_better and value <= 0:
            raise TaskError(f"task {task.name!r}: {value} cannot be divided by the expert's score.")
        return value / expert if task.higher_is_better else expert / value


def selection_of(examples: Examples) -> dict[str, Any]:
    """The selection of examples, for provenance."""
    return {"split": examples.split, **({} if examples.limit is None else {"limit": examples.limit})}
