"""Soft Frank-Wolfe steps: towards several vertices at once, with optimised weights."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ._api import Numbers
from ._candidate import Slope
from ._simplex import capped


class Landscape(Protocol):
    """The loss as a function of coefficients."""

    def loss(self, at: Numbers) -> float:
        """The loss there."""
        ...

    def slope(self, at: Numbers) -> Slope:
        """The loss and its gradient there."""
        ...


def soft_step(
    land: Landscape, at: Numbers, now: float, points: Numbers, *, steps: int, adam: float | None
) -> tuple[Numbers, float, float]:
    """Step to at + sum_j mu_j (s_j - at), with mu that minimise the loss.

    Args:
        land: The loss as a function of coefficients.
        at: Current coefficients, (rows, models).
        now: The loss there.
        points: The vertices s_j, (points, rows, models).
        steps: Updates of mu.
        adam: None optimises mu on the capped simplex {mu >= 0, sum <= 1} by projected gradient, and never raises the
            loss; a number is the initial value for Adam (lr 1e-3), without a projection.

    Returns:
        The new coefficients, the loss there, and the largest sum of a row's mu.
    """
    directions = points - at
    if adam is not None:
        mu = _by_adam(land, at, directions, steps, adam)
        to = at + _along(mu, directions)
        return to, land.loss(to), float(mu.sum(1).max())
    mu, loss = np.zeros((len(at), len(points))), now
    rate = None
    for _ in range(steps):
        gradient = _gradient(land, at, mu, directions)
        largest = float(np.abs(gradient).max())
        if largest == 0:
            break
        rate = rate or 0.5 / largest
        mu, after, rate = _projected_step(land, at, mu, loss, gradient, directions, rate)
        if after >= loss:
            break
        loss, rate = after, 2 * rate
    return at + _along(mu, directions), loss, float(mu.sum(1).max())


def _projected_step(
    land: Landscape, at: Numbers, mu: Numbers, loss: float, gradient: Numbers, directions: Numbers, rate: float
) -> tuple[Numbers, float, float]:
    """A projected gradient step; the rate is halved until the loss is lower."""
    for _ in range(20):
        to = capped(mu - rate * gradient)
        after = land.loss(at + _along(to, directions))
        if after < loss:
            return to, after, rate
        rate /= 2
    return mu, loss, rate


def _by_adam(land: Landscape, at: Numbers, directions: Numbers, steps: int, init: float) -> Numbers:
    import torch

    raw = torch.full((directions.shape[1], len(directions)), init, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=1e-3)
    for _ in range(steps):
        raw.grad = torch.from_numpy(_gradient(land, at, raw.detach().numpy(), directions))
        optimiser.step()
    return np.array(raw.detach().numpy())


def _gradient(land: Landscape, at: Numbers, mu: Numbers, directions: Numbers) -> Numbers:
    """dL/dmu_j = <g, s_j - at>, (rows, points)."""
    slope = land.slope(at + _along(mu, directions))
    return np.einsum("prm,rm->rp", directions, slope.gradient)


def _along(mu: Numbers, directions: Numbers) -> Numbers:
    return np.einsum("rp,prm->rm", mu, directions)
