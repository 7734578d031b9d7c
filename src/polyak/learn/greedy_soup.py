"""Greedy soup: add a model to the average where that does not lower the score."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np

from ..checkpoint import MemoryCheckpoint
from ..declare import In
from ..errors import TaskError
from ..recipe import Recipe
from ._api import Learned, Numbers, Problem, Split, check_recipe, learner
from ._pool import weighted

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

Accept: TypeAlias = Literal["better", "not_worse"]


@learner("greedy_soup", source="Wortsman et al., 2022. Model soups. arXiv:2203.05482")
def greedy_soup(
    problem: Problem,
    *,
    accept: Accept = "better",
    batch_size: Annotated[int, In(1, math.inf)] = 32,
    split: Split = "validation",
) -> Learned:
    """Average those models, best first, whose addition raises the score on held-out examples.

    Models are sorted by score, ties by name. Each in turn is added to the average of the models taken so far, and is
    kept if the score rises. Scores of several tasks are averaged; metrics that are lower for better models are negated.

    Args:
        problem: Models and tasks; any task that gives a score will do.
        accept: `better` requires a higher score, like the authors' code; `not_worse` accepts an equal one too, like the
            algorithm in the paper.
        batch_size: Examples per batch.
        split: Split on which models are chosen; not `test`.

    Raises:
        TaskError: the split is `test`, or missing, or a model cannot do a task.
    """
    check_recipe(problem.recipe)
    if split == "test":
        raise TaskError(
            "choosing models by their scores on the test split would bias these scores. Use `split=validation`."
        )
    for scorer in problem.scorers:
        scorer.check_split(split)
    soups = _Soups(replace(problem, recipe=replace(problem.recipe, base=None)), batch_size, split)
    names = [model.name for model in problem.recipe.models]
    alone = [soups.score([i]) for i in range(len(names))]
    taken, best, steps = _select(soups, names, alone, accept)
    decisions = {
        "scores": dict(zip(names, alone, strict=True)),
        "steps": steps,
        "taken": [names[i] for i in taken],
        "score": best,
    }
    return Learned(soups.weights(taken)[None], split, "score", decisions=decisions, recipe=soups.problem.recipe)


def _select(
    soups: _Soups, names: list[str], alone: list[float], accept: Accept
) -> tuple[list[int], float, list[dict[str, Any]]]:
    """The models that were taken, the score of their average, and the log of all decisions."""
    first, *rest = sorted(range(len(names)), key=lambda i: (-alone[i], names[i]))
    taken, best = [first], alone[first]
    steps: list[dict[str, Any]] = [{"model": names[first], "score": best, "taken": True}]
    for i in rest:
        score = soups.score([*taken, i])
        is_taken = score > best or (accept == "not_worse" and score == best)
        steps.append({"model": names[i], "score": score, "taken": is_taken})
        soups.problem.log(steps[-1])
        if is_taken:
            taken, best = [*taken, i], score
    return taken, best, steps


class _Soups:
    """Scores of averages, merged in memory as `polyak merge` would."""

    def __init__(self, problem: Problem, batch_size: int, split: str) -> None:
        self.problem, self._batch_size, self._split = problem, batch_size, split

    def weights(self, members: list[int]) -> Numbers:
        weights = np.zeros(len(self.problem.recipe.models))
        weights[members] = 1 / len(members)
        return weights

    def score(self, members: list[int]) -> float:
        from ..tasks import evaluate

        soup = _merged(weighted(self.problem.recipe, self.weights(members).tolist()))
        results = [
            evaluate(soup, scorer, split=self._split, batch_size=self._batch_size, device=self.problem.device)
            for scorer in self.problem.scorers
        ]
        return float(np.mean([r.metric_value if r.higher_is_better else -r.metric_value for r in results]))


def _merged(recipe: Recipe) -> Checkpoint:
    from ..engine import run_in_memory
    from ..planning import plan

    merged = run_in_memory(plan(recipe), workers=1)
    return MemoryCheckpoint({n: t for n, t in merged.items() if not n.startswith("heads/")}, label="a soup")
