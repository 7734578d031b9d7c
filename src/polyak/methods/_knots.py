"""The representation of KnOTS: all task vectors in one basis of the output space."""

from __future__ import annotations

import math
from typing import NamedTuple

from array_api_compat import array_namespace

from ..linalg import NEGLIGIBLE, count_above, spectrum
from ._matrices import Tasks
from ._passes import Array


class Aligned(NamedTuple):
    """Deltas in one orthonormal basis.

    Attributes:
        basis: U, (d_out, r).
        stack: U^T Delta_t of each model, (k, r, d_in), in the dtype of the deltas.
    """

    basis: Array
    stack: Array


def aligned(tasks: Tasks) -> Aligned:
    """X = [Delta_1 ... Delta_T] = U S V^T, V^T cut into T blocks of columns V_t: U, and S V_t for every t.

    U are the eigenvectors of X X^T, and S V_t is computed as U^T Delta_t, which needs neither X nor V. Null directions
    (S <= 1e-6 S_1) are left out.
    """
    xp = array_namespace(first := tasks[0])
    gram = first @ first.T
    for t in range(1, len(tasks)):
        delta = tasks[t]
        gram += delta @ delta.T
    s, basis = spectrum(gram)
    basis = basis[:, : count_above(s, NEGLIGIBLE)]
    return Aligned(basis, xp.stack([xp.astype(basis.T @ delta, tasks.dtype) for delta in tasks]))


def workspace(k: int, shape: tuple[int, ...]) -> int:
    """Bytes that the representation and its merge take at their peak; as measured."""
    return 4 * math.prod(shape) * (8 * k + 8)


def restored(basis: Array, representation: Array) -> Array:
    """The delta that has this representation, in float64."""
    xp = array_namespace(basis)
    return basis @ xp.astype(representation, xp.float64)
