"""DC-Merge: trim and sign election in a shared orthogonal basis."""

from __future__ import annotations

import math
from typing import Annotated

from array_api_compat import array_namespace

from ..linalg import Components, joined, leading, orthogonal, workspace
from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, method
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left


def _workspace(k: int, shape: tuple[int, ...]) -> int:
    """The decompositions, and for every model its entries in the common basis."""
    return workspace(k, shape) + 4 * (2 * k + 2) * min(shape[0], math.prod(shape[1:])) ** 2


@method(
    "dc_merge",
    source="DC-Merge, CVPR 2026; after the authors' code for full fine-tunes.",
    workspace=_workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def dc_merge(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    density: Annotated[float, In(0, 1)] = 0.001,
    scale: float = 1.0,
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Express the leading parts of all task vectors in one orthogonal basis, trim there, average entries that agree.

    For a matrix with smaller dimension r and T models, w_t tau_t is cut to its k = max(1, r // T) largest singular
    values, U_t S_t V_t^T. With U = polar([U_1 ... U_T]), V = polar([V_1 ... V_T]), M_t = U^T (U_t S_t V_t^T) V, of
    which the max(1, int(density r^2)) entries largest in magnitude stay. M is, entry by entry, the mean of the M_t
    that have the sign of sum_t M_t, and 0 outside T blocks of k x k on its diagonal; tau = scale * U M V^T.

    The authors' code for adapters also smooths singular values; that for full fine-tunes, which this is, does not. Ties
    in magnitude are broken by the lowest index. Decompositions are as those of `tsv_m`.

    Departures:
        Null directions (singular values of at most 1e-6 of the largest) are dropped. The smoothing of singular values
        that the authors' code for adapters has is not implemented.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        density: Fraction of the entries of each M_t that stay.
        scale: Factor of the result, chosen on validation data.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors (authors), or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """

    def merge(tasks: Tasks) -> Array:
        parts = [leading(delta, tasks.rank // len(tasks)) for delta in tasks]
        whole = joined(parts)
        u, v = orthogonal(whole.u), orthogonal(whole.v)
        count = max(1, int(density * tasks.rank**2))
        return u @ (_agreed(parts, u, v, count) * _blocks(parts)) @ v.T

    return scale * merged(deltas, weight, name, qkv, merge, single=True)


def _agreed(parts: list[Components], u: Array, v: Array, count: int) -> Array:
    """Mean of the entries that have the sign of their sum."""
    xp = array_namespace(u)
    sparse = [_largest((u.T @ part.u * part.s) @ (part.v.T @ v), count) for part in parts]
    sign = xp.sign(sum(sparse[1:], start=sparse[0]))
    total, number = xp.zeros_like(sign), xp.zeros_like(sign)
    for delta in sparse:
        agrees = xp.astype((xp.sign(delta) == sign) & (sign != 0), sign.dtype)
        total, number = total + agrees * delta, number + agrees
    return total / xp.clip(number, min=1)


def _largest(matrix: Array, count: int) -> Array:
    """Zeros but for the entries that are largest in magnitude."""
    xp = array_namespace(matrix)
    flat = xp.reshape(matrix, (-1,))
    if count >= flat.shape[0]:
        return matrix
    order = xp.argsort(-xp.abs(flat))  # stable, so equals stay in the order of their index
    rank = xp.argsort(order)
    return xp.reshape(xp.where(rank < count, flat, xp.zeros_like(flat)), matrix.shape)


def _blocks(parts: list[Components]) -> Array:
    """Ones where both directions are one model's."""
    xp = array_namespace(parts[0].u)
    owner = xp.concat([xp.zeros_like(part.s) + i for i, part in enumerate(parts)])
    return xp.astype(owner[:, None] == owner[None, :], owner.dtype)


dc_merge.delegates_to(vectors_left)
