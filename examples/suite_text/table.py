"""From one number an example to the table: means, what experts reach, and intervals over examples and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyak.tasks import interval, resampled_means

from .cost import Cost
from .making import Outcome
from .rows import (
    AVERAGE,
    DARE,
    FISHER,
    HARD,
    LAYER_WISE,
    REGMEAN,
    SOFT,
    TASK_ARITHMETIC,
    TIES,
    WITH_IRRELEVANT,
)  # fmt: skip

RESAMPLES = 4000
CLAIMS = (
    ("Fisher merging is better than averaging", FISHER, AVERAGE),
    ("RegMean is better than averaging", REGMEAN, AVERAGE),
    ("AdaMerging, layer-wise, is better than task arithmetic", LAYER_WISE, TASK_ARITHMETIC),
    ("AdaMerging, layer-wise, is better than TIES", LAYER_WISE, TIES),
    ("Frank-Wolfe merging is better than task arithmetic", HARD, TASK_ARITHMETIC),
    ("Frank-Wolfe merging is better than TIES", HARD, TIES),
    ("Frank-Wolfe merging, soft, is better than task arithmetic", SOFT, TASK_ARITHMETIC),
    ("Frank-Wolfe merging, soft, is better than TIES", SOFT, TIES),
    ("irrelevant models change Frank-Wolfe merging by less than 1 point", HARD + WITH_IRRELEVANT, HARD),
    ("irrelevant models change Frank-Wolfe merging, soft, by less than 1 point", SOFT + WITH_IRRELEVANT, SOFT),
    ("for comparison: irrelevant models in an average", AVERAGE + WITH_IRRELEVANT, AVERAGE),
    (
        "for comparison: irrelevant models in task arithmetic",
        TASK_ARITHMETIC + WITH_IRRELEVANT,
        TASK_ARITHMETIC,
    ),
    ("DARE: 90 % of the differences can be dropped", DARE, TASK_ARITHMETIC),
)


@dataclass(frozen=True)
class Made:
    """A row with everything that is known of it.

    Attributes:
        name: What the table calls it.
        data: What it saw.
        outcomes: One for each seed.
    """

    name: str
    data: str
    outcomes: Sequence[Outcome]

    def scores(self, task: str) -> np.ndarray:
        """(seeds, examples)."""
        return np.array([one.scores[task] for one in self.outcomes], np.float64)

    @property
    def cost(self) -> Cost:
        """The mean time of a seed, and the most memory of any."""
        peak = max(one.cost.peak for one in self.outcomes)
        return Cost(float(np.mean([one.cost.seconds for one in self.outcomes])), peak)


class Table:
    """All rows on the same examples.

    Each resample draws test examples anew, the same for all rows, and for every row as many seeds as it has.

    Args of the constructor:
        rows: The experts among them, each called like its task.
        tasks: Their names.
    """

    def __init__(self, rows: Sequence[Made], tasks: Sequence[str]) -> None:
        self.rows, self.tasks = {row.name: row for row in rows}, tuple(tasks)
        self._draws = {task: self._of_task(task, i) for i, task in enumerate(tasks)}

    def plain(self) -> list[dict[str, Any]]:
        """Every row as plain data; shares, not per cent."""
        return [self._row(row) for row in self.rows.values()]

    def effects(self) -> list[dict[str, Any]]:
        """The claims of papers as differences of mean accuracy, where both rows are there."""
        return [
            {"claim": claim, "rows": [first, second], "difference": self._difference(first, second)}
            for claim, first, second in CLAIMS
            if first in self.rows and second in self.rows
        ]

    def _row(self, row: Made) -> dict[str, Any]:
        each = {task: float(row.scores(task).mean()) for task in self.tasks}
        seeds = [float(np.mean([row.scores(task)[i].mean() for task in self.tasks])) for i in range(len(row.outcomes))]
        own = {task: float(self.rows[task].scores(task).mean()) for task in self.tasks}
        with np.errstate(divide="ignore", invalid="ignore"):  # an expert that is never right has nothing relative to it
            relative = [self._draws[task][row.name] / self._draws[task][task] for task in self.tasks]
            normalised = np.mean([np.divide(each[task], own[task]) for task in self.tasks])
        return {
            "name": row.name,
            "data": row.data,
            "tasks": each,
            "mean": _told(np.mean(list(each.values())), np.mean([self._draws[t][row.name] for t in self.tasks], 0)),
            "normalised": _told(normalised, np.mean(relative, 0)),
            "seeds": seeds,
            "seconds": row.cost.seconds,
            "peak": row.cost.peak,
        }

    def _difference(self, first: str, second: str) -> list[float | None]:
        apart = [self._draws[task][first] - self._draws[task][second] for task in self.tasks]
        means = [np.mean([self.rows[name].scores(task).mean() for task in self.tasks]) for name in (first, second)]
        return _told(means[0] - means[1], np.mean(apart, 0))

    def _of_task(self, task: str, seed: int) -> Mapping[str, np.ndarray]:
        """For every row, its mean on each resample."""
        scores = [row.scores(task) for row in self.rows.values()]
        stacked = np.concatenate(scores)
        draws = resampled_means(stacked, np.ones(stacked.shape[1]), resamples=RESAMPLES, seed=[0, seed])
        rng, found, start = np.random.default_rng(1), dict[str, np.ndarray](), 0
        for row in self.rows.values():
            count = len(row.outcomes)
            # One draw of seeds a resample, for all tasks: the generator begins anew for each task.
            chosen = rng.integers(count, size=(count, RESAMPLES))
            found[row.name] = draws[start + chosen, np.arange(RESAMPLES)].mean(0)
            start += count
        return found


def _told(value: Any, draws: np.ndarray) -> list[float | None]:
    found = interval(float(value), draws)
    return [found.value, found.low, found.high]
