"""The objective of WUDI and its descendants: how much a merged task vector disturbs each task's outputs.

L(M) = sum_t |(M - Delta_t) Delta_t^T|^2 / n_t with n_t = |Delta_t|^2; its gradient is 2 (M C - D), where
C = sum_t Delta_t^T Delta_t / n_t and D = sum_t Delta_t Delta_t^T Delta_t / n_t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from array_api_compat import array_namespace

from ..linalg import divided
from ._matrices import Tasks
from ._passes import Array

FLOOR = 1e-8  # the least eigenvalue of C, which has trace T, that the filters see


class Interference(NamedTuple):
    """The objective of one matrix.

    Attributes:
        total: Sum of the deltas, (d_out, d_in).
        c: (d_in, d_in).
        d: (d_out, d_in).
    """

    total: Array
    c: Array
    d: Array


def interference(tasks: Tasks) -> Interference:
    """The objective, in the dtype of the tasks. A delta of zeros has no part in it."""
    total = tasks.total()
    xp = array_namespace(total)
    rows, columns = total.shape
    d, c, norms = xp.zeros_like(total), None, list[float]()
    for delta in tasks:
        square = delta @ delta.T if rows < columns else delta.T @ delta  # whichever is smaller
        norms.append(float(xp.sum(xp.astype(xp.linalg.diagonal(square), xp.float64))))
        if not norms[-1]:
            continue
        square *= 1 / norms[-1]
        d += square @ delta if rows < columns else delta @ square
        if c is not None:
            c += square
        elif rows >= columns:
            c = square
    return Interference(total, _gram(tasks, norms) if c is None else c, d)


def _gram(tasks: Tasks, norms: Sequence[float]) -> Array:
    """C. Models go together into as few products as give rows enough: each product of its own is written twice."""
    xp = array_namespace(first := tasks[0])
    device = {"device": first.device} if hasattr(first, "device") else {}
    c = xp.zeros((first.shape[1],) * 2, dtype=first.dtype, **device)
    used = [t for t, norm in enumerate(norms) if norm]
    together = max(1, math.ceil(first.shape[1] / first.shape[0]))
    for begin in range(0, len(used), together):
        units = xp.concat([tasks[t] * norms[t] ** -0.5 for t in used[begin : begin + together]], axis=0)
        c += units.T @ units
    return c


def workspace(k: int, shape: tuple[int, ...]) -> int:
    """Bytes that the objective and one eigendecomposition take at their peak; as measured."""
    rows, columns = shape[0], math.prod(shape[1:])
    return 4 * (13 * rows * columns + 10 * columns**2)


def minimum_within(objective: Interference, values: Array, vectors: Array, count: int) -> Array:
    """The minimum of the objective along the `count` last eigenvectors of C, and the sum along the others.

    S - S V V^T + D V diag(1 / l) V^T. Eigenvalues and eigenvectors are all, or those `count`.
    """
    high, low = vectors[:, -count:], vectors[:, :-count]
    merged = ((objective.d @ high) / values[-count:]) @ high.T
    if 0 < low.shape[1] < count:  # the eigenvectors are orthonormal
        return merged + (objective.total @ low) @ low.T
    return merged + (objective.total - (objective.total @ high) @ high.T)


def minimum_without(objective: Interference, values: Array, vectors: Array) -> Array:
    """The minimum of the objective but along few eigenvectors of C, and the sum along those.

    For U and l the few: S U U^T + D (I - U U^T) A^-1 with A = C + U diag(c - l) U^T, where c is C's mean eigenvalue.

    Args:
        objective: The objective, in NumPy's float32.
        values: l, (m,).
        vectors: U, (d_in, m).
    """
    vectors = 1.5 * vectors - 0.5 * (vectors @ (vectors.T @ vectors))
    mean = float(objective.c.trace()) / objective.c.shape[0]
    raised = objective.c + (vectors * (mean - values)) @ vectors.T
    return divided(objective.d - (objective.d @ vectors) @ vectors.T, raised) + (objective.total @ vectors) @ vectors.T


def filtered(objective: Interference, values: Array, vectors: Array, shares: Array) -> Array:
    """Move the sum towards the objective's minimum along eigenvectors of C.

    S - S V diag(f) V^T + D V diag(f / l) V^T.

    Args:
        objective: The objective; S is its total.
        values: Eigenvalues l, (n,), above zero.
        vectors: Eigenvectors V, (d_in, n).
        shares: Fraction of the way along each, f: (n,).
    """
    moved = (objective.d @ vectors) / values - objective.total @ vectors
    return objective.total + (moved * shares) @ vectors.T
