"""The objective of WUDI and its descendants: how much a merged delta disturbs what each task does with its inputs.

L(M) = sum_t |(M - Delta_t) Delta_t^T|^2 / n_t with n_t = |Delta_t|^2; its gradient is 2 (M C - D), where
C = sum_t Delta_t^T Delta_t / n_t and D = sum_t Delta_t Delta_t^T Delta_t / n_t.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from array_api_compat import array_namespace

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
    xp = array_namespace(first := tasks[0])
    total, d = xp.zeros_like(first), xp.zeros_like(first)
    place = {"device": first.device} if hasattr(first, "device") else {}
    c = xp.zeros((first.shape[1],) * 2, dtype=first.dtype, **place)
    for delta in tasks:
        total += delta
        norm = float(xp.sum(delta * delta, dtype=xp.float64))
        if norm == 0:
            continue
        unit = delta / math.sqrt(norm)
        gram = unit.T @ unit
        c += gram
        # Whichever of the two products is the cheaper.
        d += (unit @ unit.T) @ delta if delta.shape[0] < delta.shape[1] else delta @ gram
    return Interference(total, c, d)


def workspace(k: int, shape: tuple[int, ...]) -> int:
    """Bytes that the objective and one eigendecomposition take at their peak; as measured."""
    rows, columns = shape[0], math.prod(shape[1:])
    return 4 * (13 * rows * columns + 10 * columns**2)


def minimum_within(found: Interference, values: Array, vectors: Array, count: int) -> Array:
    """The minimum of the objective along the `count` last eigenvectors of C, and the sum along the others.

    S - S V V^T + D V diag(1 / l) V^T.
    """
    high, low = vectors[:, -count:], vectors[:, :-count]
    merged = ((found.d @ high) / values[-count:]) @ high.T
    if low.shape[1] < count:  # the eigenvectors are orthonormal
        return merged + (found.total @ low) @ low.T
    return merged + (found.total - (found.total @ high) @ high.T)


def filtered(found: Interference, values: Array, vectors: Array, shares: Array) -> Array:
    """Move the sum towards the objective's minimum along eigenvectors of C.

    S - S V diag(f) V^T + D V diag(f / l) V^T.

    Args:
        found: The objective; S is its total.
        values: Eigenvalues l, (n,), above zero.
        vectors: Eigenvectors V, (d_in, n).
        shares: How far to go along each, f: (n,).
    """
    moved = (found.d @ vectors) / values - found.total @ vectors
    return found.total + (moved * shares) @ vectors.T
