"""Learned soup: weights on the simplex, by gradient descent on labelled examples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import numpy as np

from ..declare import In
from ._api import Granularity, Learned, Problem, Split, learner
from ._batches import drawn
from ._candidate import Candidate
from ._descent import Descent
from ._objective import Objective, check_use
from ._pool import Pool


@learner("learned_soup", source="Wortsman et al., 2022. Model soups, appendix I. arXiv:2203.05482")
def learned_soup(
    problem: Problem,
    *,
    granularity: Granularity = "task",
    epochs: Annotated[int, In(1, math.inf)] = 5,
    batch_size: Annotated[int, In(1, math.inf)] = 32,
    lr: Annotated[float, In(0, math.inf, above=True)] = 0.05,
    split: Split = "calibration",
) -> Learned:
    """Learn the weights of an average by the loss on labelled examples.

    theta = sum_i a_i theta_i with a = softmax(z), z from 0; AdamW without weight decay, with a cosine schedule to zero
    over all steps. dL/da_i = <dL/dtheta, theta_i>. The temperature of the logits is not learned.

    Args:
        problem: Models and tasks.
        granularity: One weight per model (`task`), or per model and tensor (`layer`, the authors' by-layer soup).
        epochs: Passes over the examples; the authors use 5.
        batch_size: Examples per task and update.
        lr: Learning rate of AdamW; the authors use 0.05.
        split: Split to learn from.

    Raises:
        TaskError: a task has no module, no such split, no labels, or a loss that is not finite.
    """
    import torch

    check_use("loss", split)
    recipe = replace(problem.recipe, base=None)
    candidate = Candidate(Pool(recipe), problem.tasks(split), granularity=granularity, device=problem.device)
    raw = torch.zeros(candidate.shape, dtype=torch.float64, requires_grad=True)
    others = np.full(len(candidate.pool), 1 / len(candidate.pool)) if candidate.by_layer else None
    steps = epochs * math.ceil(max(task.count(split) for task in candidate.tasks) / batch_size)
    optimiser = torch.optim.AdamW([raw], lr=lr, weight_decay=0)
    descent = Descent(candidate, Objective("loss"), lambda raw: raw.softmax(1), others, mean=True, log=problem.log)
    batches = drawn(candidate.tasks, split, batch_size=batch_size, seed=problem.seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    coefficients, decisions, notes = descent.run(raw, optimiser, batches, steps, schedule)
    return Learned(
        coefficients,
        split,
        "loss",
        names=candidate.rows if candidate.by_layer else (),
        others=() if others is None else tuple(others.tolist()),
        decisions=decisions,
        notes=tuple(notes),
        unlearned=tuple(candidate.others) if candidate.by_layer else (),
        recipe=recipe,
    )
