"""Comparison of models on the same examples: paired differences, and scores normalised to experts or the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import TaskError, suggestion
from ._task import Scorer
from .evaluating import Progress, Scores, evaluate
from .paired import Bootstrap, Interval, Numbers, average, interval, resampled_means, sign_test

Model = str | Path | Checkpoint


@dataclass(frozen=True)
class Result:
    """One model on one task.

    Attributes:
        score: The metric.
        difference: Score minus that of the first model; None for the first itself.
        wins: Examples on which it is better than the first model.
        losses: Examples on which it is worse.
        sign_test: Two-sided p of wins against losses; None for the first.
        normalised: Score over the expert's (held-in) or the base's (held-out); inverted for lower-is-better metrics.
        recovered: (score - base) / (expert - base): 0 is the base, 1 the expert.
    """

    score: Interval
    difference: Interval | None = None
    wins: int = 0
    losses: int = 0
    sign_test: float | None = None
    normalised: Interval | None = None
    recovered: Interval | None = None


@dataclass(frozen=True)
class TaskComparison:
    """All models on one task.

    Attributes:
        task: Its name.
        metric: Name of the metric.
        higher_is_better: True if a larger metric is better.
        examples: Number of examples.
        group: `held-in` if the task has an expert, else `held-out` if there is a base.
        expert: The expert's score.
        base: The base's score.
        results: By model.
        majority: The metric of always giving the most frequent answer; None if that has no meaning.
    """

    task: str
    metric: str
    higher_is_better: bool
    examples: int
    group: str | None
    expert: float | None
    base: float | None
    results: Mapping[str, Result]
    majority: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All models on all tasks.

    Attributes:
        models: Their names; the others are compared with the first.
        split: The split that was scored.
        tasks: One entry per task.
        groups: By group and model, `normalised` averaged over the tasks of the group.
        level: Confidence level of the intervals.
        resamples: Number of resamples per interval.
        notes: Messages for the user.
    """

    models: tuple[str, ...]
    split: str
    tasks: tuple[TaskComparison, ...]
    groups: Mapping[str, Mapping[str, Interval]]
    level: float
    resamples: int
    notes: tuple[str, ...] = ()


def compare(
    models: Mapping[str, Model],
    tasks: Sequence[Scorer],
    *,
    experts: Mapping[str, Model] | None = None,
    base: Model | None = None,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    cache: str | Path | None = None,
    bootstrap: Bootstrap | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Score models on tasks, and compare each with the first, example by example.

    Args:
        models: By name, two or more.
        tasks: One or more, each with a name of its own.
        experts: The expert of a task, by the task's name; a task with an expert is held-in.
        base: The base model; a task without an expert is held-out, and normalised to the base.
        split: The split that was scored.
        limit: Maximum number of examples per task.
        batch_size: Examples per batch.
        device: Device of the models, as torch names it.
        cache: Folder for scores; None caches none.
        bootstrap: Settings of the intervals.
        progress: Called with the number of examples just scored.

    Raises:
        TaskError: there are too few models or examples, a name is duplicated or unknown, or `evaluate` raises it.
    """
    experts, bootstrap = experts or {}, bootstrap or Bootstrap()
    _check(models, tasks, experts)

    def score(model: Model, task: Scorer) -> Scores:
        return evaluate(
            model, task, split=split, limit=limit, batch_size=batch_size, device=device, cache=cache, progress=progress
        )

    measured: list[_Measured] = []
    for task in tasks:
        scores = {name: score(model, task) for name, model in models.items()}
        expert = score(experts[task.name], task) if task.name in experts else None
        measured.append(_Measured(task, scores, expert, score(base, task) if base is not None else None, bootstrap))
    notes = [f"{task.name}: {note}" for task in tasks for note in task.notes]
    notes += [note for task_scores in measured for note in task_scores.notes()]
    compared = tuple(task_scores.comparison() for task_scores in measured)
    groups = _groups(measured, list(models), bootstrap)
    return Comparison(tuple(models), split, compared, groups, bootstrap.level, bootstrap.resamples, tuple(notes))


def compare_scores(task: Scorer, scores: Mapping[str, Scores], *, bootstrap: Bootstrap | None = None) -> TaskComparison:
    """Compare with the first what models have reached on one task already.

    Args:
        task: The task.
        scores: Results of `evaluate`, by model.
        bootstrap: Settings of the intervals.

    Raises:
        TaskError: there are too few examples, or models were scored on different ones.
    """
    return _Measured(task, scores, None, None, bootstrap or Bootstrap()).comparison()


def _check(models: Mapping[str, Model], tasks: Sequence[Scorer], experts: Mapping[str, Model]) -> None:
    names = [task.name for task in tasks]
    if len(models) < 2:
        raise TaskError("a comparison needs two models or more.")
    if not names:
        raise TaskError("a comparison needs a task.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TaskError(f"two tasks are called {twice!r}. Give one of them another `name:`.")
    for name in experts:
        if name not in names:
            raise TaskError(
                f"there is an expert for {name!r}, which is not one of the tasks. {suggestion(name, names)}"
            )


class _Measured:
    """The scores of all models on one task, and resamples of them."""

    def __init__(
        self, task: Scorer, scores: Mapping[str, Scores], expert: Scores | None, base: Scores | None, how: Bootstrap
    ) -> None:
        self.task, self.models, self.how = task, list(scores), how
        rows = [*scores.values(), *(reference for reference in (expert, base) if reference is not None)]
        self.values, self.weights = _aligned(rows)
        self.scores, self.majority = [row.metric_value for row in rows], rows[0].majority
        seed = [how.seed, crc32(task.name.encode())]
        means = resampled_means(self.values, self.weights, resamples=how.resamples, seed=seed)
        self.draws = task.summarise(means)
        self.expert = len(scores) if expert is not None else None
        self.base = len(rows) - 1 if base is not None else None

    @property
    def group(self) -> str | None:
        if self.expert is not None:
            return "held-in"
        return None if self.base is None else "held-out"

    def comparison(self) -> TaskComparison:
        return TaskComparison(
            task=self.task.name,
            metric=self.task.metric,
            higher_is_better=self.task.higher_is_better,
            examples=self.values.shape[1],
            group=self.group,
            expert=None if self.expert is None else self.scores[self.expert],
            base=None if self.base is None else self.scores[self.base],
            results={name: self._result(i) for i, name in enumerate(self.models)},
            majority=self.majority,
        )

    def notes(self) -> list[str]:
        reference = self.expert if self.expert is not None else self.base
        if reference is None or self.normalised(0) is not None:
            return []
        return [f"{self.task.name}: a score to divide by is 0, so nothing is normalised"]

    def _result(self, i: int) -> Result:
        normalised = self.normalised(i)
        score = self._interval(self.scores[i], self.draws[i])
        normalised_interval = None if normalised is None else self._interval(*normalised)
        if i == 0:
            return Result(score, normalised=normalised_interval, recovered=self._recovered(i))
        gains = (self.values[i] - self.values[0]) * (1 if self.task.higher_is_better else -1)
        return Result(
            score,
            difference=self._interval(self.scores[i] - self.scores[0], self.draws[i] - self.draws[0]),
            wins=int((gains > 0).sum()),
            losses=int((gains < 0).sum()),
            sign_test=sign_test(gains),
            normalised=normalised_interval,
            recovered=self._recovered(i),
        )

    def normalised(self, i: int) -> tuple[float, Numbers] | None:
        """Score over that of the expert, else of the base; None without either, or if that would divide by 0."""
        reference = self.expert if self.expert is not None else self.base
        if reference is None:
            return None
        over, under = (i, reference) if self.task.higher_is_better else (reference, i)
        if self.scores[under] == 0:
            return None
        return self.scores[over] / self.scores[under], _ratio(self.draws[over], self.draws[under])

    def _recovered(self, i: int) -> Interval | None:
        if self.expert is None or self.base is None or self.scores[self.expert] == self.scores[self.base]:
            return None
        gain = self.scores[self.expert] - self.scores[self.base]
        draws = _ratio(self.draws[i] - self.draws[self.base], self.draws[self.expert] - self.draws[self.base])
        return self._interval((self.scores[i] - self.scores[self.base]) / gain, draws)

    def _interval(self, value: float, draws: Numbers) -> Interval:
        return interval(value, draws, level=self.how.level)


def _aligned(rows: Sequence[Scores]) -> tuple[Numbers, Numbers]:
    first = rows[0]
    for row in rows:
        if row.examples != first.examples:
            raise TaskError(f"task {row.task!r} gave {row.model} and {first.model} different examples.")
    if len(first.examples) < 2:
        raise TaskError(f"task {first.task!r} has one example; a comparison with error bars needs two or more.")
    same = all(np.array_equal(row.weights, first.weights) for row in rows)
    values = np.stack([row.values for row in rows])
    return values, first.weights if same else np.stack([row.weights for row in rows])


def _ratio(over: Numbers, under: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        return over / under


def _groups(measured: Sequence[_Measured], models: Sequence[str], how: Bootstrap) -> dict[str, dict[str, Interval]]:
    groups: dict[str, dict[str, Interval]] = {}
    for group in ("held-in", "held-out"):
        for i, name in enumerate(models):
            parts: list[Any] = [task_scores.normalised(i) for task_scores in measured if task_scores.group == group]
            if parts and None not in parts:
                groups.setdefault(group, {})[name] = interval(*average(parts), level=how.level)
    return groups
