"""Candidates and results of a search."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..recipe import Recipe, Scalar

if TYPE_CHECKING:
    from optuna.study import Study


@dataclass(frozen=True)
class Tried:
    """A candidate.

    Attributes:
        number: Its number in the study.
        state: `complete`, `pruned` or `failed`.
        values: Its values, by hyperparameter.
        objectives: Its scores; empty if it failed, on the examples so far if it was pruned.
        metrics: The metric of each task.
        baseline: Name of the baseline; empty for candidates proposed by the sampler.
        error: Why it failed.
        merging: Seconds of planning, merging and loading.
        scoring: Seconds of the tasks.
    """

    number: int
    state: str
    values: Mapping[str, Scalar]
    objectives: tuple[float, ...]
    metrics: Mapping[str, float]
    baseline: str = ""
    error: str = ""
    merging: float = 0.0
    scoring: float = 0.0


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        recipe: The recipe with the best values and their provenance.
        best: The best candidate.
        tried: All candidates, in order.
        front: The Pareto front; with one objective, the best candidate.
        objectives: Names of the objectives.
        directions: `maximize` or `minimize`, per objective.
        importance: Importance of each hyperparameter for the first objective (PED-ANOVA, Watanabe et al., 2023,
            arXiv:2304.10255); sums to 1, and empty if there are too few candidates.
        about: Settings and inputs of the search.
    """

    recipe: Recipe
    best: Tried
    tried: tuple[Tried, ...]
    front: tuple[Tried, ...]
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    importance: Mapping[str, float]
    about: Mapping[str, Any]


def as_tried(trial: Any) -> Tried:
    """An Optuna trial as a candidate."""
    record, state = trial.user_attrs.get("polyak", {}), trial.state.name.lower()
    return Tried(
        trial.number,
        "failed" if state == "fail" else state,
        dict(trial.params),
        tuple(record.get("objectives", ())),
        record.get("metrics", {}),
        trial.user_attrs.get("baseline", ""),
        record.get("error", ""),
        record.get("merging", 0.0),
        record.get("scoring", 0.0),
    )


def counts_of(tried: Sequence[Tried]) -> dict[str, int]:
    """Number of candidates per state."""
    states = [candidate.state for candidate in tried]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def front_of(tried: Sequence[Tried], directions: Sequence[str]) -> list[Tried]:
    """The Pareto front: candidates that no other dominates; the first of equal ones."""
    signs = [1 if direction == "maximize" else -1 for direction in directions]
    gains = [tuple(s * v for s, v in zip(signs, candidate.objectives, strict=True)) for candidate in tried]
    kept: list[Tried] = []
    for i, (candidate, gain) in enumerate(zip(tried, gains, strict=True)):
        worse = any(all(a >= b for a, b in zip(other, gain, strict=True)) and other != gain for other in gains)
        if not worse and gain not in gains[:i]:
            kept.append(candidate)
    return kept


def best_of(front: Sequence[Tried], directions: Sequence[str]) -> Tried:
    """The candidate of a front with the best mean of its objectives, each scaled to [0, 1] over the front."""
    if len(front) == 1:
        return front[0]
    columns = list(zip(*(candidate.objectives for candidate in front), strict=True))
    scores: list[float] = []
    for candidate in front:
        shares = [
            ((value - min(column)) if way == "maximize" else (max(column) - value)) / ((max(column) - min(column)) or 1)
            for value, column, way in zip(candidate.objectives, columns, directions, strict=True)
        ]
        scores.append(sum(shares))
    return front[scores.index(max(scores))]


def importance_of(study: Study, complete: int) -> dict[str, float]:
    """Importance of each hyperparameter for the first objective; empty with too few candidates."""
    if complete < 10:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it takes low targets as good, which they are
            return get_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: sign * trial.values[0]
            )
    except (ValueError, RuntimeError):  # all candidates are alike
        return {}


def as_data(result: Found) -> dict[str, Any]:
    """The result of a search as plain data."""
    from dataclasses import asdict

    return {
        "best": asdict(result.best),
        "front": [candidate.number for candidate in result.front],
        "objectives": dict(zip(result.objectives, result.directions, strict=True)),
        "importance": dict(result.importance),
        "about": dict(result.about),
        "tried": [asdict(candidate) for candidate in result.tried],
    }
