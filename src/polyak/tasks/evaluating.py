"""Evaluate a model on a task: one score per example, cached so that it is never computed twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt

from .. import checkpoint as checkpoints
from .._version import __version__
from ..checkpoint import Checkpoint
from ..errors import TaskError
from ._batch import Outcome, ScoreRequest
from ._task import Scorer
from .cache import Cache
from .examples import digest_of_model
from .paired import Bootstrap, Interval, Numbers, interval, resampled_means, weighted_means

Progress = Callable[[int], None]  # called with the number of examples just scored


@dataclass(frozen=True)
class Scores:
    """The scores of a model on a task.

    Attributes:
        task: The task's name.
        metric: Name of the metric.
        higher_is_better: True if a larger metric is better.
        split: The split that was scored.
        model: The model's label.
        model_digest: Digest of its tensors.
        task_digest: Digest of the examples and of all settings that the scores depend on.
        examples: The position of each example in its split.
        values: One score per example.
        weights: Weight of each in the mean.
        metric_value: The metric over all of them.
        majority: The metric of always giving the most frequent answer; None if that has no meaning.
        cached: True if the scores were read from the cache.
    """

    task: str
    metric: str
    higher_is_better: bool
    split: str
    model: str
    model_digest: str
    task_digest: str
    examples: tuple[int, ...]
    values: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    metric_value: float
    majority: float | None = None
    cached: bool = False


def evaluate(
    model: str | Path | Checkpoint,
    task: Scorer,
    *,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a model on a task, with one score per example.

    Args:
        model: A checkpoint, or its path.
        task: The task.
        split: The split to score.
        limit: Maximum number of examples, the first of the split.
        batch_size: Examples per batch.
        device: Device of the model, as torch names it.
        cache: Folder for scores, by the digests of model and task; None caches none.
        progress: Called with the number of examples just scored.

    Raises:
        TaskError: the split is unknown or empty, the model cannot run the task, or a score is not finite.
        CheckpointError: the model cannot be read.
    """
    if not isinstance(model, Checkpoint):
        with checkpoints.open(model) as opened:
            return evaluate(
                opened, task, split=split, limit=limit, batch_size=batch_size, device=device, cache=cache,
                progress=progress,
            )  # fmt: skip
    request = ScoreRequest(split, limit, batch_size, device, progress)
    digests = digest_of_model(model), _digest(task, request)
    kept = Cache(cache).read(*digests) if cache is not None else None
    outcome = kept or _finite(task.score(model, request), task, model)
    if cache is not None and kept is None:
        Cache(cache).write(*digests, outcome, about={"task": task.name, "model": model.label, "split": split})
    if kept is not None and progress is not None:
        progress(len(kept.values))
    return _scores(model, task, split, digests, outcome, cached=kept is not None)


def summary(task: Scorer, values: Numbers, weights: Numbers) -> float:
    """The metric over examples.

    Raises:
        TaskError: all weights are 0, and the metric is not defined then.
    """
    value = float(task.summarise(weighted_means(values[None], weights))[0])
    if math.isnan(value) and not weights.any():
        raise TaskError(f"task {task.name!r}: the weights of all examples are 0, so there is no {task.metric}.")
    return value


def score_interval(task: Scorer, scores: Scores, *, how: Bootstrap | None = None) -> Interval:
    """The metric with its bootstrap interval over examples; one example has no interval.

    Args:
        task: The task of the scores.
        scores: The result of `evaluate`.
        how: Settings of the bootstrap.
    """
    if len(scores.values) < 2:
        return Interval(scores.metric_value)
    how = how or Bootstrap()
    seed = [how.seed, crc32(task.name.encode())]
    draws = task.summarise(resampled_means(scores.values[None], scores.weights, resamples=how.resamples, seed=seed)[0])
    return interval(scores.metric_value, draws, level=how.level)


def _digest(task: Scorer, request: ScoreRequest) -> str:
    import xxhash

    limit = "all" if request.limit is None else str(request.limit)
    return xxhash.xxh3_128_hexdigest(f"{__version__} {task.digest(request.split)} {limit}".encode())


def _finite(outcome: Outcome, task: Scorer, model: Checkpoint) -> Outcome:
    wrong = np.flatnonzero(~np.isfinite(outcome.values))
    if len(wrong):
        at = wrong[0]
        raise TaskError(
            f"task {task.name!r}: the score of {model.label} on example {outcome.examples[at] + 1} is "
            f"{outcome.values[at]} ({len(wrong)} of {len(outcome.values)} are not finite). The model is broken, or its "
            "logits overflow."
        )
    return outcome


def _scores(
    model: Checkpoint, task: Scorer, split: str, digests: tuple[str, str], outcome: Outcome, *, cached: bool
) -> Scores:
    return Scores(
        task=task.name,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        split=split,
        model=model.label,
        model_digest=digests[0],
        task_digest=digests[1],
        examples=outcome.examples,
        values=outcome.values,
        weights=outcome.weights,
        metric_value=summary(task, outcome.values, outcome.weights),
        majority=task.majority(split, outcome.examples),
        cached=cached,
    )
