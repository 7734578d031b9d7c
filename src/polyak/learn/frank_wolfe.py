"""Frank-Wolfe merging: minimise a loss over the convex hull of the models."""

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
    """Minimise a loss over the convex hull of the models by Frank-Wolfe steps, for whole models or per tensor.

    g = dL/dtheta; s = argmin_i <g, theta_i>; theta <- theta + gamma (s - theta). The gap <g, theta - s> is an upper
    bound of the loss above its minimum if it is convex. A useless model is never the argmin, so it does no harm.

    - `recommended` starts at the average, selects by inner products and finds the step by halving, so that the loss
      never rises. A hard step is pairwise: it moves weight from the worst vertex with weight to the best one, which
      converges linearly where the loss is strongly convex. With a base, the vertices are
      first stretched: theta_0 + r tau_i, with r = 1, 1.5, 2.25, ... as long as the loss of their average falls. Task
      arithmetic and the paper's own starting point lie outside the hull of the models, which is r = 1
      (`hull=models`). The coefficients of a tensor are r times a point of the simplex.
    - `paper` starts at theta_0 + init sum_i tau_i and takes steps of 2 / (t + 2), t = 1, 2, ...
    - `official` (the authors' vision code) starts there too, adds that point as a vertex, selects by the cosine of g
      and theta_i, which depends on the origin, and takes steps of init * step_size * 2 / (t + 2), t = 0, 1, ... It
      computes gradients in training mode; here the module is in evaluation mode.

    `soft` selects one vertex per task, by the task's gradient, and optimises their weights: on the simplex by projected
    gradient, or with `follow=official` by Adam without a projection.

    Args:
        problem: Models and tasks.
        variant: `hard`, one vertex per iteration; or `soft`, one vertex per task.
        granularity: A vertex per tensor (`layer`: the product of hulls, which is larger), or one for all (`task`).
        follow: Variant of the algorithm; see above.
        objective: The tasks' supervised `loss`, or the `entropy` of predictions if there are no labels.
        iterations: Maximum number of iterations; the paper uses 10 for language, 3 for vision, and 15 for soft steps.
        examples: Examples per task, the same in every iteration; the paper uses 100.
        batch_size: Examples per batch; the result does not depend on it.
        step_size: Factor of the steps of `paper` and `official`; the authors' vision script uses 0.01.
        init: Initial coefficient of all deltas for `paper` and `official`; also a factor of the steps of `official`.
        hull: The hull of the stretched models, or of the `models` themselves, for `recommended`.
        inner_steps: Number of updates of the weights in a soft step; the authors use 500.
        with_base: Make the base a vertex.
        tolerance: Gap below which the descent stops.
        split: Split to learn from.

    Raises:
        TaskError: a task has no module, no such split, no labels where they are needed, or a loss that is not finite.
        SettingError: a base is needed, and there is none.
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
