"""LM-Cocktail: models weigh the more, the better they already do on a few examples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import numpy as np

from ..declare import In
from ._api import Learned, Problem, Split, learner
from ._batches import fixed
from ._candidate import Candidate
from ._objective import Objective, check_use
from ._pool import Pool


@learner("lm_cocktail", source="Xiao et al., 2023. LM-Cocktail. arXiv:2311.13534")
def lm_cocktail(
    problem: Problem,
    *,
    temperature: Annotated[float, In(0, math.inf, above=True)] = 5.0,
    examples: Annotated[int, In(1, math.inf)] = 5,
    batch_size: Annotated[int, In(1, math.inf)] = 32,
    split: Split = "calibration",
) -> Learned:
    """Weight models by the softmax of their negative losses on a few labelled examples of the task.

    w = softmax(-loss / temperature), with loss_i the mean loss of model i; theta = sum_i w_i theta_i. The base takes
    part if it is listed among the models.

    Args:
        problem: Models and tasks; losses of several tasks are averaged.
        temperature: Temperature of the softmax; the authors use 5.
        examples: Examples per task; the authors use about five.
        batch_size: Examples that go through a module together.
        split: Split to learn from.

    Raises:
        TaskError: a task has no module, no such split, no labels, or a loss that is not finite.
    """
    check_use("loss", split)
    recipe = replace(problem.recipe, base=None)
    candidate = Candidate(Pool(recipe), problem.tasks(split), granularity="task", device=problem.device)
    batches = fixed(candidate.tasks, split, examples=examples, batch_size=batch_size, seed=problem.seed)
    losses: list[float] = []
    for name, alone in zip(candidate.pool.names, np.eye(len(candidate.pool)), strict=True):
        candidate.put(alone[None], alone)
        losses.append(candidate.loss(batches, Objective("loss")))
        problem.log({"model": name, "loss": losses[-1]})
    logits = -np.asarray(losses) / temperature
    weights = np.exp(logits - logits.max())
    return Learned(
        (weights / weights.sum())[None],
        split,
        "loss",
        decisions={"losses": dict(zip(candidate.pool.names, losses, strict=True))},
        recipe=recipe,
    )
