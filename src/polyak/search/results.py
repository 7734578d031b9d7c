"""What a search has tried and found."""

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
        number: Its place in the study.
        state: `complete`, `pruned` or `failed`.
        values: What it filled in, by place.
        objectives: What it reached; none if it failed, what it had reached if it was pruned.
        metrics: The metric of each task.
        baseline: Which baseline it is; empty for those that a sampler proposed.
        error: Why it failed.
        merging: Seconds that planning, merging and loading took.
        scoring: Seconds that the tasks took.
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
    """What a search found.

    Attributes:
        recipe: The best, with its numbers and its provenance.
        best: The candidate that it is.
        tried: All candidates, in order.
        front: Those that no other surpasses in all objectives; with one objective, the best.
        objectives: What the objectives are called.
        directions: `maximize` or `minimize`, for each.
        importance: How much the best candidates' values differ from the others', by place (PED-ANOVA, Watanabe et al.,
            2023, arXiv:2304.10255), for the first objective; sums to 1, and empty where there are too few candidates.
        about: What was searched, on what.
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
    """A trial of Optuna's, as a candidate."""
    said, state = trial.user_attrs.get("polyak", {}), trial.state.name.lower()
    return Tried(
        trial.number,
        "failed" if state == "fail" else state,
        dict(trial.params),
        tuple(said.get("objectives", ())),
        said.get("metrics", {}),
        trial.user_attrs.get("baseline", ""),
        said.get("error", ""),
        said.get("merging", 0.0),
        said.get("scoring", 0.0),
    )


def counts_of(tried: Sequence[Tried]) -> dict[str, int]:
    """How many candidates ended in each state."""
    states = [one.state for one in tried]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def front_of(tried: Sequence[Tried], directions: Sequence[str]) -> list[Tried]:
    """The candidates that no other surpasses: as good in all objectives, and better in one; the first of equals."""
    signs = [1 if one == "maximize" else -1 for one in directions]
    gains = [tuple(s * v for s, v in zip(signs, one.objectives, strict=True)) for one in tried]
    kept: list[Tried] = []
    for i, (one, gain) in enumerate(zip(tried, gains, strict=True)):
        worse = any(all(a >= b for a, b in zip(other, gain, strict=True)) and other != gain for other in gains)
        if not worse and gain not in gains[:i]:
            kept.append(one)
    return kept


def best_of(front: Sequence[Tried], directions: Sequence[str]) -> Tried:
    """The candidate of a front with the best mean of its objectives, each between the worst and best of the front."""
    if len(front) == 1:
        return front[0]
    columns = list(zip(*(one.objectives for one in front), strict=True))
    scores: list[float] = []
    for one in front:
        shares = [
            ((value - min(column)) if way == "maximize" else (max(column) - value)) / ((max(column) - min(column)) or 1)
            for value, column, way in zip(one.objectives, columns, directions, strict=True)
        ]
        scores.append(sum(shares))
    return front[scores.index(max(scores))]


def importance_of(study: Study, complete: int) -> dict[str, float]:
    """How much each place matters for the first objective; nothing where there are too few candidates to say."""
    if complete < 10:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it takes low targets for good ones, which they are
            return get_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: sign * trial.values[0]
            )
    except (ValueError, RuntimeError):  # all candidates alike
        return {}


def as_data(found: Found) -> dict[str, Any]:
    """All that a search found, as plain data."""
    from dataclasses import asdict

    return {
        "best": asdict(found.best),
        "front": [one.number for one in found.front],
        "objectives": dict(zip(found.objectives, found.directions, strict=True)),
        "importance": dict(found.importance),
        "about": dict(found.about),
        "tried": [asdict(one) for one in found.tried],
    }
