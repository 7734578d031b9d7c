"""Frank-Wolfe descent over the convex hull of the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._api import Log, Numbers
from ._candidate import Candidate, Slope
from ._hull import Choice, Vertex, best, cosines, mixed, pairwise_step
from ._objective import Objective
from ._soft import soft_step

if TYPE_CHECKING:
    from ..tasks import Batch

Variant: TypeAlias = Literal["hard", "soft"]
Follow: TypeAlias = Literal["recommended", "paper", "official"]
Hull: TypeAlias = Literal["stretched", "models"]
STRETCH = 1.5  # factor between the sizes of the hulls that are tried


@dataclass(frozen=True)
class How:
    """Settings of the descent; see `frank_wolfe`."""

    variant: Variant
    follow: Follow
    hull: Hull
    iterations: int
    step_size: float
    init: float
    inner_steps: int
    tolerance: float

    @property
    def descends(self) -> bool:
        """True if step sizes are found by line search, so that the loss never rises."""
        return self.follow == "recommended"

    def gamma(self, t: int) -> float:
        """The step of iteration t = 0, 1, ... without a line search."""
        if self.follow == "official":
            return self.init * self.step_size * 2 / (t + 2)
        return self.step_size * 2 / (t + 3)


@dataclass
class Walk:
    """The coefficients during a Frank-Wolfe descent.

    Attributes:
        candidate: The merged model.
        batches: The examples of each task.
        objective: The objective to minimise.
        how: Settings of the descent.
        corners: The vertices of the hull.
        log: Called with every step.
        stretch: Distance of the vertices from the base, in multiples of the models' own distance.
    """

    candidate: Candidate
    batches: Sequence[Sequence[Batch]]
    objective: Objective
    how: How
    corners: list[Vertex]
    log: Log
    stretch: float = 1.0
    _weights: Numbers = field(init=False)  # of the corners, (rows, corners)
    _grams: Numbers | None = field(init=False, default=None)
    _last: float = field(init=False, default=1.0)  # the last step

    def run(self) -> tuple[Numbers, dict[str, Any]]:
        """The final coefficients, and the decisions."""
        at, now = self._start()
        losses, done = [now], list[dict[str, Any]]()
        for t in range(self.how.iterations):
            slope = self.slope(at)
            choice = self._choose(at, slope)
            gap = float(np.maximum(choice.gap, 0).sum())
            entry = {"iteration": t, "loss": now, "gap": gap, "vertices": _counted(choice.names)}
            if self.how.descends and gap <= self.how.tolerance:
                done.append(entry | {"step": 0.0})
                break
            at, now, step = self._advance(at, now, slope, choice, t)
            losses.append(now)
            done.append(entry | {"step": step})
            self.log({**done[-1], "after": now, "coefficients": at.tolist()})
            if step == 0:
                break
        return at, {"losses": losses, "stretch": self.stretch, "iterations": done}

    def others(self, at: Numbers) -> Numbers:
        """Coefficients of tensors without a gradient."""
        return np.full(len(self.candidate.pool), 1 / len(self.candidate.pool)) if self.candidate.by_layer else at[0]

    def loss(self, at: Numbers) -> float:
        """The loss, averaged over tasks."""
        self.candidate.put(at, self.others(at))
        return self.candidate.loss(self.batches, self.objective)

    def slope(self, at: Numbers, task: int | None = None) -> Slope:
        """Loss and gradient, averaged over tasks; or of one task."""
        self.candidate.put(at, self.others(at))
        batches = [b if task in (None, i) else [] for i, b in enumerate(self.batches)]
        return self.candidate.slope(batches, self.objective, mean=True)

    def _start(self) -> tuple[Numbers, float]:
        if self.how.descends:
            return self._start_between()
        at = np.full(self.candidate.shape, self.how.init)
        if self.how.follow == "official":
            self.corners = [*self.corners, Vertex("initial", at)]
            self._grams = np.stack([self.candidate.pool.gram(name) for name in self.candidate.rows])
        return at, self.loss(at)

    def _start_between(self) -> tuple[Numbers, float]:
        """The average of the models, scaled away from the base as long as the loss falls."""
        rows, count = self.candidate.shape
        average = np.full((rows, count), 1 / count)
        now = self.loss(average)
        while self.how.hull == "stretched" and self.candidate.pool.recipe.base and STRETCH * self.stretch <= count:
            after = self.loss(STRETCH * self.stretch * average)
            if not after < now:
                break
            self.stretch, now = STRETCH * self.stretch, after
        self.corners = [Vertex(corner.name, self.stretch * corner.point) for corner in self.corners]
        self._weights = np.zeros((rows, len(self.corners)))
        self._weights[:, :count] = 1 / count
        return self.stretch * average, now

    def _choose(self, at: Numbers, slope: Slope) -> Choice:
        if self._grams is None:
            return best(self.corners, at, slope.gradient)
        scores = cosines(self.corners, slope.tensors, slope.norms, self._grams)
        scores = scores if self.candidate.by_layer else scores.sum(0, keepdims=True)
        return best(self.corners, at, slope.gradient, scores)

    def _advance(self, at: Numbers, now: float, slope: Slope, choice: Choice, t: int) -> tuple[Numbers, float, float]:
        if self.how.variant == "soft":
            points = self._points_of_tasks(at)
            adam = (self.how.init if t == 0 else 1e-8) if self.how.follow == "official" else None
            return soft_step(self, at, now, points, steps=self.how.inner_steps, adam=adam)
        if self.how.descends:
            first = min(1.0, 4 * self._last)
            step = pairwise_step(self.loss, self.corners, self._weights, slope.gradient, now, first)
            self._weights, after, self._last = step
            return mixed(self.corners, self._weights), after, self._last
        gamma = self.how.gamma(t)
        at = at + gamma * (choice.point - at)
        return at, self.loss(at), gamma

    def _points_of_tasks(self, at: Numbers) -> Numbers:
        """Per task, the best vertex by its gradient that no earlier task took, (tasks, rows, models)."""
        rows = self.candidate.shape[0]
        free, points = np.ones((rows, len(self.corners)), bool), list[Numbers]()
        corners = np.stack([corner.point for corner in self.corners], axis=1)
        for task in range(min(len(self.candidate.tasks), len(self.corners))):
            scores = self._choose(at, self.slope(at, task)).scores
            chosen = np.where(free, scores, np.inf).argmin(1)
            free[np.arange(rows), chosen] = False
            points.append(corners[np.arange(rows), chosen])
        return np.stack(points)


def _counted(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}
