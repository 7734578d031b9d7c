"""Strategies that turn a run into one model: its last checkpoint, its best, averages, and the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, cast

from ..checkpoint import Checkpoint
from ..errors import SettingError, TaskError, suggestion
from ..recipe import Recipe
from .choosing import is_higher_better, metric_of
from .opening import Opener
from .recipes import weights_of
from .runs import RunCheckpoint
from .weighting import BY_METRIC, Form, Weighting

if TYPE_CHECKING:
    from ..tasks import Bootstrap, Comparison, Scorer, Scores

LAST, BEST, ORACLE = "last", "source-dev best", "oracle"

Score: TypeAlias = "Callable[[Checkpoint, Scorer], Scores]"


@dataclass(frozen=True)
class Strategies:
    """Results of the strategies.

    Attributes:
        comparison: Each strategy on each task, compared with the first.
        chosen: By task and strategy, the selected checkpoint or the number of averaged ones.
        checkpoints: By task, the score of every checkpoint.
    """

    comparison: Comparison
    chosen: Mapping[str, Mapping[str, str]]
    checkpoints: Mapping[str, Mapping[str, float]]


def weightings(
    run: Sequence[RunCheckpoint], weighting: Weighting, *, every_form: bool = False
) -> tuple[dict[str, Weighting], list[str]]:
    """The uniform weighting and another one by their names, and notes on functions that do not fit.

    Args:
        run: The checkpoints to average.
        weighting: The other one.
        every_form: If it is by a metric, use every weighting function that fits its values.

    Raises:
        SettingError: it does not fit the checkpoints' metrics.
    """
    by_name, notes = {"average": Weighting()}, list[str]()
    if weighting.by == "uniform":
        return by_name, notes
    if weighting.by in ("ema", "ema-raw"):
        return by_name | {f"average by {weighting.by}, {weighting.decay:g}": weighting}, notes
    metric_of(run, weighting.by)
    is_higher_better(weighting.by, weighting.higher_is_better)
    for form in BY_METRIC if every_form else [weighting.form]:
        variant = replace(weighting, form=cast("Form", form))
        try:
            weights_of(run, variant)
        except SettingError as error:
            if not every_form:
                raise
            notes.append(f"no average by {weighting.by}, {form}: {error}")
        else:
            by_name[f"average by {weighting.by}, {form} {weighting.penalty:g}"] = variant
    return by_name, notes


def best_by(run: Sequence[RunCheckpoint], metric: str, *, higher_is_better: bool | None = None) -> RunCheckpoint:
    """The checkpoint with the best logged metric; the earliest on ties.

    Raises:
        SettingError: it was not logged for one of them, or its direction is ambiguous.
    """
    return _best(run, metric_of(run, metric), is_higher_better(metric, higher_is_better))


def best_on(run: Sequence[RunCheckpoint], source: Scorer, opener: Opener, score: Score) -> RunCheckpoint:
    """The checkpoint with the best score on development data of a task; the earliest on ties.

    Args:
        run: The checkpoints.
        source: The task.
        opener: Opens them.
        score: Scores a model on the task, on the examples for selection.
    """
    values: list[float] = []
    for checkpoint in run:
        with opener.checkpoint(checkpoint) as model:
            values.append(score(model, source).metric_value)
    return _best(run, values, source.higher_is_better)


def compare_strategies(
    run: Sequence[RunCheckpoint],
    averages: Mapping[str, Recipe],
    tasks: Sequence[Scorer],
    *,
    opener: Opener,
    score: Score,
    best: RunCheckpoint | None = None,
    against: str = LAST,
    bootstrap: Bootstrap | None = None,
) -> Strategies:
    """Score every checkpoint of a run and averages of them, and compare the strategies with a reference.

    The oracle is the checkpoint with the best score on the reported examples themselves: an upper bound for selecting
    one, not a strategy.  It may differ between tasks.

    Args:
        run: The checkpoints, by step.
        averages: Averages of them, by name.
        tasks: The tasks to report on.
        opener: Opens them.
        score: Scores a model on a task, such as `polyak.tasks.evaluate`.
        best: The checkpoint selected on development data, if any.
        against: The reference strategy.
        bootstrap: Settings of the confidence intervals.

    Raises:
        SettingError: unknown strategy `against`.
        TaskError: no task is given, two have one name, or as `score` raises it.
        CheckpointError: a checkpoint cannot be read.

    Source: Schmidt, Vulic and Glavas, 2023. Free Lunch: Robust Cross-Lingual Transfer via Model Checkpoint Averaging.
        arXiv:2305.16834 (the strategies)
    """
    _check(tasks)
    names = _in_order([LAST, *([BEST] if best else []), *averages, ORACLE], against)
    scores: dict[str, dict[str, Scores]] = {task.name: {} for task in tasks}
    for checkpoint in run:
        with opener.checkpoint(checkpoint) as model:
            _add(scores, checkpoint.name, model, tasks, score)
    checkpoints = {
        task: {name: checkpoint.metric_value for name, checkpoint in each.items()} for task, each in scores.items()
    }
    for name, recipe in averages.items():
        with opener.average(recipe) as model:
            _add(scores, name, model, tasks, score)
    chosen = {task.name: _chosen(names, run, averages, best, task, checkpoints[task.name]) for task in tasks}
    return Strategies(_compared(scores, chosen, averages, tasks, bootstrap), chosen, checkpoints)


def _check(tasks: Sequence[Scorer]) -> None:
    names = [task.name for task in tasks]
    if not names:
        raise TaskError("strategies are compared on tasks: give at least one.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TaskError(f"two tasks are named {twice!r}. Give one of them another `name:`.")


def _add(
    scores: dict[str, dict[str, Scores]], name: str, model: Checkpoint, tasks: Sequence[Scorer], score: Score
) -> None:
    for task in tasks:
        scores[task.name][name] = score(model, task)


def _in_order(names: list[str], first: str) -> list[str]:
    if first not in names:
        raise SettingError(f"unknown strategy {first!r} to compare with. {suggestion(first, names)}")
    return [first, *(name for name in names if name != first)]


def _chosen(
    names: Sequence[str],
    run: Sequence[RunCheckpoint],
    averages: Mapping[str, Recipe],
    best: RunCheckpoint | None,
    task: Scorer,
    values: Mapping[str, float],
) -> dict[str, str]:
    sources = {name: f"{len(recipe.models)} checkpoints" for name, recipe in averages.items()}
    sources[LAST] = run[-1].name
    sources[ORACLE] = _best(run, list(values.values()), task.higher_is_better).name
    if best is not None:
        sources[BEST] = best.name
    return {name: sources[name] for name in names}


def _compared(
    scores: Mapping[str, Mapping[str, Scores]],
    chosen: Mapping[str, Mapping[str, str]],
    averages: Mapping[str, Recipe],
    tasks: Sequence[Scorer],
    bootstrap: Bootstrap | None,
) -> Comparison:
    from ..tasks import Bootstrap, Comparison, compare_scores

    how = bootstrap or Bootstrap()
    first = tasks[0].name
    split = scores[first][chosen[first][LAST]].split
    results = tuple(
        compare_scores(
            task,
            {n: scores[task.name][n if n in averages else what] for n, what in chosen[task.name].items()},
            bootstrap=how,
        )
        for task in tasks
    )
    notes = tuple(f"{task.name}: {note}" for task in tasks for note in task.notes)
    return Comparison(tuple(chosen[first]), split, results, {}, how.level, how.resamples, notes)


def _best(run: Sequence[RunCheckpoint], values: Sequence[float], higher_is_better: bool) -> RunCheckpoint:
    return run[values.index(max(values) if higher_is_better else min(values))]
