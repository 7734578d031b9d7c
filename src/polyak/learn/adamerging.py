"""AdaMerging: coefficients that minimise the entropy of predictions."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Annotated

import numpy as np

from ..declare import In
from ._api import Granularity, Learned, Problem, Split, learner
from ._batches import drawn
from ._candidate import Candidate
from ._descent import Descent
from ._objective import Kind, Objective, check_use, is_transductive
from ._pool import Pool
from ._trimming import trimmed_models, written


@learner(
    "adamerging",
    source="Yang et al., 2024. AdaMerging: Adaptive Model Merging for Multi-Task Learning. arXiv:2310.02575",
)
def adamerging(
    problem: Problem,
    *,
    granularity: Granularity = "layer",
    objective: Kind = "entropy",
    steps: Annotated[int, In(1, math.inf)] = 500,
    batch_size: Annotated[int, In(1, math.inf)] = 16,
    lr: Annotated[float, In(0, math.inf, above=True)] = 1e-3,
    init: float = 0.3,
    clamp: bool = True,
    epsilon: Annotated[float, In(0, 1)] = 0.0,
    trim: bool = False,
    density: Annotated[float, In(0, 1)] = 0.2,
    split: Split = "calibration",
) -> Learned:
    """Learn a coefficient per model, or per model and tensor, that minimises prediction entropy on unlabelled examples.

    theta_l = theta_{0,l} + sum_i lambda_{i,l} tau_{i,l}; the sum over tasks of the mean entropy of predictions is
    minimised by Adam (betas 0.9 and 0.999). dL/dlambda_{i,l} = <dL/dtheta_l, tau_{i,l}>, so that a step takes one
    ordinary backward pass and one pass over the models' files, for any number of models.

    The paper learns from the test inputs. Here that is `split=test`, which the result records; by default, separate
    calibration examples are used.

    Args:
        problem: Models and tasks.
        granularity: A coefficient per model and tensor (`layer`, "layer-wise" in the paper), or per model (`task`,
            "task-wise").
        objective: `entropy`, or the tasks' supervised `loss`.
        steps: Number of updates; the paper uses 500.
        batch_size: Examples per task and update; the paper uses 16 (its code two such batches).
        lr: Learning rate of Adam.
        init: Initial value of all coefficients.
        clamp: Clamp coefficients to [0, 1], as in the authors' code; outside they have no gradient. FusionBench does
            not clamp by default.
        epsilon: Added to probabilities before their logarithm; FusionBench uses 1e-8.
        trim: AdaMerging++: learn coefficients of each model's part in TIES (`ties_part`), which is written to
            temporary files once. In the learned recipe each model is a nested merge that reads all models.
        density: Fraction of entries to keep before sign election, with `trim`; the paper uses 0.2.
        split: Split to learn from.

    Raises:
        TaskError: a task has no module, no such split, no labels where they are needed, or a loss that is not finite.
    """
    import torch

    check_use(objective, split)
    recipe = trimmed_models(problem.recipe, density) if trim else problem.recipe
    with written(recipe) if trim else nullcontext(recipe) as readable:
        candidate = Candidate(Pool(readable), problem.tasks(split), granularity=granularity, device=problem.device)
        raw = torch.full(candidate.shape, init, dtype=torch.float64, requires_grad=True)
        others = np.full(len(candidate.pool), 1 / len(candidate.pool))
        bounded = (lambda raw: raw.clamp(0, 1)) if clamp else (lambda raw: raw + 0)
        descent = Descent(candidate, Objective(objective, epsilon), bounded, others, mean=False, log=problem.log)
        batches = drawn(candidate.tasks, split, batch_size=batch_size, seed=problem.seed)
        coefficients, decisions, notes = descent.run(raw, torch.optim.Adam([raw], lr=lr), batches, steps)
    return Learned(
        coefficients,
        split,
        objective,
        names=candidate.rows if candidate.by_layer else (),
        others=tuple(others.tolist()) if candidate.others else (),
        decisions=decisions,
        notes=tuple(notes) + (transductive(),) * is_transductive(split),
        unlearned=tuple(candidate.others),
        recipe=recipe,
    )


def transductive() -> str:
    """The note for transductive learning."""
    return "transductive: the inputs of the test split were learned from, so scores on them are not held out"
