"""Frank-Wolfe merging: walk from model to model inside their hull, the way the loss points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np

from ..methods import In
from ._api import Granularity, Learned, Log, Numbers, Problem, Split, learner
from ._batches import fixed
from ._candidate import Candidate, Slope
from ._hull import Choice, Vertex, backtracked, best, cosines, vertices
from ._objective import Kind, Objective, check_use, is_transductive
from ._pool import Pool
from ._soft import soft_step
from .adamerging import transductive

if TYPE_CHECKING:
    from ..tasks import Batch

Variant: TypeAlias = Literal["hard", "soft"]
Follow: TypeAlias = Literal["recommended", "paper", "official"]


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
    inner_steps: Annotated[int, In(1, math.inf)] = 20,
    with_base: bool = False,
    tolerance: Annotated[float, In(0, math.inf)] = 1e-6,
    split: Split = "calibration",
) -> Learned:
    """Minimise a loss over the hull of the models by Frank-Wolfe steps, for whole models or for each tensor.

    g = dL/dtheta; s = argmin_i <g, theta_i>; theta <- theta + gamma (s - theta). The gap <g, theta - s> bounds how far
    the loss is above its least where it is convex. A model that is of no use is never the argmin, so it does no harm.

    - `recommended` begins at the average, chooses by inner products and searches the step by halving, so that the loss
      never rises and the coefficients of a tensor stay on the simplex.
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
        iterations: At most; the paper has 10 for language and 3 for vision, 15 where soft.
        examples: Of each task, the same in every iteration; the paper has 100.
        batch_size: Examples that go through a module together; the result does not depend on it.
        step_size: Multiplies the steps of `paper` and `official`; the authors' vision script has 0.01.
        init: Coefficient of all deltas at the beginning of `paper` and `official`, and of official's steps.
        inner_steps: Updates of the weights of a soft step; the authors have 500.
        with_base: Whether the base is a vertex.
        tolerance: The gap below which it stops.
        split: Which examples.

    Raises:
        TaskError: a task has no module, no such split, no labels where they are needed, or a loss that is not finite.
        SettingError: the base is asked for, and there is none.
    """
    check_use(objective, split)
    pool = Pool(problem.recipe)
    _check_base(pool, follow, with_base=with_base)
    candidate = Candidate(pool, problem.tasks(split), granularity=granularity, device=problem.device)
    batches = fixed(candidate.tasks, split, examples=examples, batch_size=batch_size, seed=problem.seed)
    how = _How(variant, follow, iterations, step_size, init, inner_steps, tolerance)
    walk = _Walk(candidate, batches, Objective(objective), how, vertices(candidate, with_base=with_base), problem.log)
    coefficients, decisions = walk.run()
    others = tuple(walk.others(coefficients).tolist())
    return Learned(
        coefficients,
        split,
        objective,
        names=candidate.rows if candidate.by_layer else (),
        others=others,
        decisions=decisions,
        notes=(transductive(),) * is_transductive(split),
        unlearned=tuple(candidate.others) if candidate.by_layer else (),
    )


@dataclass(frozen=True)
class _How:
    variant: Variant
    follow: Follow
    iterations: int
    step_size: float
    init: float
    inner_steps: int
    tolerance: float

    def gamma(self, t: int) -> float:
        """The step of iteration t = 0, 1, ... where it is not searched."""
        if self.follow == "official":
            return self.init * self.step_size * 2 / (t + 2)
        return self.step_size * 2 / (t + 3)


@dataclass
class _Walk:
    """Where the coefficients are, and how they go on."""

    candidate: Candidate
    batches: Sequence[Sequence[Batch]]
    objective: Objective
    how: _How
    corners: list[Vertex]
    log: Log

    def run(self) -> tuple[Numbers, dict[str, Any]]:
        at, done = self._start(), list[dict[str, Any]]()
        if self.how.follow == "official":
            self.corners = [*self.corners, Vertex("initial", at)]
        self._grams = self._norms_of_vertices() if self.how.follow == "official" else None
        now = self.loss(at)
        losses = [now]
        for t in range(self.how.iterations):
            slope = self.slope(at)
            choice = self._choose(at, slope)
            gap = float(np.maximum(choice.gap, 0).sum())
            entry = {"iteration": t, "loss": now, "gap": gap, "vertices": _counted(choice.names)}
            if self.how.follow == "recommended" and gap <= self.how.tolerance:
                done.append(entry | {"step": 0.0})
                break
            at, now, step = self._advance(at, now, slope, choice, t)
            losses.append(now)
            done.append(entry | {"step": step})
            self.log({**done[-1], "after": now, "coefficients": at.tolist()})
            if step == 0:
                break
        return at, {"losses": losses, "iterations": done}

    def others(self, at: Numbers) -> Numbers:
        """Coefficients of tensors without a gradient."""
        return np.full(len(self.candidate.pool), 1 / len(self.candidate.pool)) if self.candidate.by_layer else at[0]

    def loss(self, at: Numbers) -> float:
        self.candidate.put(at, self.others(at))
        return self.candidate.loss(self.batches, self.objective)

    def slope(self, at: Numbers, task: int | None = None) -> Slope:
        """Of all tasks, averaged; or of one."""
        self.candidate.put(at, self.others(at))
        batches = [b if task in (None, i) else [] for i, b in enumerate(self.batches)]
        return self.candidate.slope(batches, self.objective, mean=True)

    def _start(self) -> Numbers:
        each = 1 / len(self.candidate.pool) if self.how.follow == "recommended" else self.how.init
        return np.full(self.candidate.shape, each)

    def _choose(self, at: Numbers, slope: Slope, corners: list[Vertex] | None = None) -> Choice:
        corners = corners or self.corners
        if self._grams is None:
            return best(corners, at, slope.gradient)
        scores = cosines(corners, slope.tensors, slope.norms, self._grams)
        return best(corners, at, slope.gradient, scores if self.candidate.by_layer else scores.sum(0, keepdims=True))

    def _norms_of_vertices(self) -> Numbers:
        return np.stack([self.candidate.pool.gram(name) for name in self.candidate.rows])

    def _advance(self, at: Numbers, now: float, slope: Slope, choice: Choice, t: int) -> tuple[Numbers, float, float]:
        if self.how.variant == "soft":
            points = self._points_of_tasks(at)
            adam = (self.how.init if t == 0 else 1e-8) if self.how.follow == "official" else None
            return soft_step(self, at, now, points, steps=self.how.inner_steps, adam=adam)
        if self.how.follow == "recommended":
            to = np.where(choice.gap[:, None] > 0, choice.point, at)  # a tensor without a gap stays where it is
            step, after = backtracked(self.loss, at, to, now, float(np.maximum(choice.gap, 0).sum()))
            return at + step * (to - at), after, step
        gamma = self.how.gamma(t)
        at = at + gamma * (choice.point - at)
        return at, self.loss(at), gamma

    def _points_of_tasks(self, at: Numbers) -> Numbers:
        """For each task the vertex that its gradient likes best of those that are left, (tasks, rows, models)."""
        free, points = [list(self.corners) for _ in range(self.candidate.shape[0])], list[Numbers]()
        for task in range(min(len(self.candidate.tasks), len(self.corners))):
            slope = self.slope(at, task)
            choice = self._choose(at, slope)
            order = np.argsort(choice.scores, axis=1, kind="stable")
            names = [corner.name for corner in self.corners]
            rows: list[Numbers] = []
            for row, ranked in enumerate(order):
                left = {corner.name for corner in free[row]}
                first = next(int(i) for i in ranked if names[i] in left)
                free[row] = [corner for corner in free[row] if corner.name != names[first]]
                rows.append(self.corners[first].point[row])
            points.append(np.stack(rows))
        return np.stack(points)


def _counted(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _check_base(pool: Pool, follow: Follow, *, with_base: bool) -> None:
    from ..errors import SettingError

    if pool.recipe.base is None and (with_base or follow != "recommended"):
        what = "`with_base=true`" if with_base else f"`follow={follow}`"
        raise SettingError(f"{what} needs a base: give the recipe a `base:`.")
