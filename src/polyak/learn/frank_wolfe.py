"""Frank-Wolfe merging: walk from model to model inside their hull, the way the loss points."""

from __future__ import annotations

import math
from typing import Annotated

from ..declare import In
from ..errors import SettingError
from ._api import Granularity, Learned, Problem, Split, learner
from ._batches import fixed
from ._candidate import Candidate
from ._hull import vertices
from ._objective import Kind, Objective, check_use, is_transductive
from ._pool import Pool
from ._walk import Follow, How, Hull, Variant, Walk
from .adamerging import transductive


@learner("frank_wolfe", source="Chen et al., 2025. FW-Merging. arXiv:2503.12649")
def frank_wolfe(
    problem: Problem,
    *,
    variant: Variant = "hard",
    granularity: Granularity = "layer",
    follow: Follow = "recommended",
    objective: Kind = "loss",
    iterations: Annotated[int, In(1, math.inf)] = 10,
    examples: Annotated[int, In(1, math.inf)] = 100,
    batch_size: Annotated[int, In(1, math.inf)] = 32,
    step_size: Annotated[float, In(0, 1, above=True)] = 1.0,
    init: float = 0.3,
    hull: Hull = "stretched",
    inner_steps: Annotated[int, In(1, math.inf)] = 20,
    with_base: bool = False,
    tolerance: Annotated[float, In(0, math.inf)] = 1e-6,
    split: Split = "calibration",
) -> Learned:
    """Minimise a loss over the hull of the models by Frank-Wolfe steps, for whole models or for each tensor.

    g = dL/dtheta; s = argmin_i <g, theta_i>; theta <- theta + gamma (s - theta). The gap <g, theta - s> bounds how far
    the loss is above its least where it is convex. A model that is of no use is never the argmin, so it does no harm.

    - `recommended` begins at the average, chooses by inner products and searches the step by halving, so that the loss
      never rises. A hard step is pairwise: it moves weight from the vertex in use that the gradient likes least to the
      one that it likes best, which converges linearly where the loss is strongly convex. With a base, the vertices are
      first stretched: theta_0 + r tau_i, with r = 1, 1.5, 2.25, ... as long as the loss of their average falls. Task
      arithmetic and the paper's own starting point lie outside the hull of the models, which is r = 1
      (`hull=models`). The coefficients of a tensor are r times a point of the simplex.
    - `paper` begins at theta_0 + init sum_i tau_i and takes steps of 2 / (t + 2), t = 1, 2, ...
    - `official` (vision) begins there too, takes that point as one more vertex, chooses by the cosine of g and theta_i,
      which depends on where the origin is, and steps by init * step_size * 2 / (t + 2), t = 0, 1, ... Its module is in
      training mode while gradients are taken; ours is not.

    `soft` takes a vertex for each task, by its own gradient, and then weighs these: on the simplex by projected
    gradient, or under `official` by Adam without a projection.

    Args:
        problem: Models and tasks.
        variant: One vertex an iteration, or one for each task.
        granularity: A vertex for each tensor (the product of hulls, which is larger), or one for all.
        follow: Whose rules.
        objective: The tasks' supervised `loss`, or the `entropy` of predictions where there are no labels.
        iterations: Maximum number of iterations; the paper has 10 for language and 3 for vision, 15 where soft.
        examples: Examples per task, the same in every iteration; the paper has 100.
        batch_size: Examples that go through a module together; the result does not depend on it.
        step_size: Multiplies the steps of `paper` and `official`; the authors' vision script has 0.01.
        init: Coefficient of all deltas at the beginning of `paper` and `official`, and of official's steps.
        hull: The hull of the stretched models, or of the `models` themselves, for `recommended`.
        inner_steps: Updates of the weights of a soft step; the authors have 500.
        with_base: Make the base a vertex.
        tolerance: The gap below which it stops.
        split: Examples to learn from.

    Raises:
        TaskError: a task has no module, no such split, no labels where they are needed, or a loss that is not finite.
        SettingError: the base is asked for, and there is none.
    """
    check_use(objective, split)
    pool = Pool(problem.recipe)
    _check_base(pool, follow, with_base=with_base)
    candidate = Candidate(pool, problem.tasks(split), granularity=granularity, device=problem.device)
    batches = fixed(candidate.tasks, split, examples=examples, batch_size=batch_size, seed=problem.seed)
    how = How(variant, follow, hull, iterations, step_size, init, inner_steps, tolerance)
    walk = Walk(candidate, batches, Objective(objective), how, vertices(candidate, with_base=with_base), problem.log)
    coefficients, decisions = walk.run()
    return Learned(
        coefficients, split, objective, names=candidate.rows if candidate.by_layer else (),
        others=tuple(walk.others(coefficients).tolist()), decisions=decisions,
        notes=(transductive(),) * is_transductive(split),
        unlearned=tuple(candidate.others) if candidate.by_layer else (),
    )  # fmt: skip


def _check_base(pool: Pool, follow: Follow, *, with_base: bool) -> None:
    if pool.recipe.base is None and (with_base or follow != "recommended"):
        what = "`with_base=true`" if with_base else f"`follow={follow}`"
        raise SettingError(f"{what} needs a base: give the recipe a `base:`.")
