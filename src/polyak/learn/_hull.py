"""The convex hull of models in coefficients: vertices, linear minimisation, and steps that never raise the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._api import Numbers
from ._candidate import Candidate

LEAST = 2.0**-30  # smallest fraction of a full step that a line search tries


@dataclass(frozen=True)
class Vertex:
    """A corner of the hull.

    Attributes:
        name: Its name in decisions.
        point: Its coefficients, shaped like the candidate's: one row, or one row per tensor.
    """

    name: str
    point: Numbers


def vertices(candidate: Candidate, *, with_base: bool) -> list[Vertex]:
    """The experts, and the base if `with_base`."""
    rows, count = candidate.shape
    corners = [Vertex(name, np.tile(np.eye(count)[i], (rows, 1))) for i, name in enumerate(candidate.pool.names)]
    return corners + ([Vertex("base", np.zeros((rows, count)))] if with_base else [])


@dataclass(frozen=True)
class Choice:
    """The vertex of each row with the smallest inner product with the gradient.

    Attributes:
        names: Names of the vertices.
        point: Their coefficients.
        scores: Scores by which they were chosen, (rows, vertices); the lowest wins.
        gap: <gradient, theta - s> per row, an upper bound of the loss above its minimum if it is convex.
    """

    names: tuple[str, ...]
    point: Numbers
    scores: Numbers
    gap: Numbers


def best(corners: list[Vertex], at: Numbers, gradient: Numbers, scores: Numbers | None = None) -> Choice:
    """Linear minimisation: for every row, the vertex with the smallest inner product with the gradient.

    Args:
        corners: The vertices.
        at: Coefficients at which the gradient was taken.
        gradient: dL/d coefficients.
        scores: Scores to choose by instead, (rows, vertices).
    """
    points = np.stack([corner.point for corner in corners], axis=1)  # (rows, vertices, models)
    inner = np.einsum("rvm,rm->rv", points, gradient)
    chosen = (inner if scores is None else scores).argmin(1)
    point = points[np.arange(len(points)), chosen]
    gap = ((at - point) * gradient).sum(1)
    return Choice(tuple(corners[i].name for i in chosen), point, inner if scores is None else scores, gap)


def mixed(corners: Sequence[Vertex], weights: Numbers) -> Numbers:
    """The convex combination of vertices.

    Args:
        corners: The vertices.
        weights: Their shares in every row, (rows, vertices).
    """
    return np.einsum("rv,vrm->rm", weights, np.stack([corner.point for corner in corners]))


def pairwise_step(
    loss: Callable[[Numbers], float],
    corners: Sequence[Vertex],
    weights: Numbers,
    gradient: Numbers,
    now: float,
    first: float = 1.0,
) -> tuple[Numbers, float, float]:
    """In every row, move weight from the worst vertex with weight to the best one, by their products with the gradient.

    A full step moves the whole weight of the worst vertex. On a polytope this converges linearly
    where the loss is strongly convex; plain Frank-Wolfe steps zigzag (Lacoste-Julien and Jaggi, 2015,
    arXiv:1511.05932).

    Args:
        loss: The loss as a function of coefficients.
        corners: The vertices.
        weights: Their shares in every row, (rows, vertices).
        gradient: dL/d coefficients, where they are.
        now: The loss there.
        first: The first step to try; it is halved after each failure.

    Returns:
        The new weights, the loss there, and the step: 0 if no step lowers the loss.
    """
    rows = np.arange(len(weights))
    inner = np.einsum("vrm,rm->rv", np.stack([corner.point for corner in corners]), gradient)
    to, away = inner.argmin(1), np.where(weights > 0, inner, -np.inf).argmax(1)
    amount = weights[rows, away]
    slope = float((amount * (inner[rows, away] - inner[rows, to])).sum())
    full = weights.copy()
    full[rows, away] = 0
    full[rows, to] += amount  # no change if both are the same vertex
    step, after = backtracked(loss, mixed(corners, weights), mixed(corners, full), now, slope, first)
    return weights + step * (full - weights), after, step


def backtracked(
    loss: Callable[[Numbers], float], at: Numbers, to: Numbers, now: float, slope: float, first: float = 1.0
) -> tuple[float, float]:
    """The first of the steps 1, 1/2, 1/4, ... that lowers the loss by 1e-4 of what its slope predicts (Armijo's rule).

    Args:
        loss: The loss as a function of coefficients.
        at: Current coefficients.
        to: Coefficients after a full step.
        now: The loss there.
        slope: Minus its derivative along the step; not negative.
        first: The step that is tried first, instead of 1.

    Returns:
        The step, 0 if there is none, and the loss after it.
    """
    step = first
    while step >= LEAST:
        after = loss(at + step * (to - at))
        if after <= now - 1e-4 * step * slope:
            return step, after
        step /= 2
    return 0.0, now


def cosines(corners: list[Vertex], products: Numbers, norms: Numbers, grams: Numbers) -> Numbers:
    """cos(g_l, theta_l) of every tensor and vertex, (tensors, vertices): the criterion of the authors' code.

    Args:
        corners: The vertices.
        products: <g_l, .> of base and deltas, (tensors, 1 + models).
        norms: ||g_l||, (tensors,).
        grams: Inner products of base and deltas, (tensors, 1 + models, 1 + models).
    """
    ratios = np.empty((len(products), len(corners)))
    for v, corner in enumerate(corners):
        point = np.broadcast_to(corner.point, (len(products), products.shape[1] - 1))
        full = np.concatenate([np.ones((len(products), 1)), point], axis=1)  # theta_0 counts once
        lengths = np.sqrt(np.maximum(np.einsum("li,lij,lj->l", full, grams, full), 0)) * norms
        inner = (products * full).sum(1)
        ratios[:, v] = np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths > 0)
    return ratios
