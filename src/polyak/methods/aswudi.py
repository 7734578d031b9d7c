"""ASWUDI: WUDI's minimum in a subspace given by the spectrum."""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from ..linalg import eigenvectors, has_lapack, tridiagonal
from . import Array, Coefficient, Delta, Deltas, Law, Name, Pattern, method
from ._interference import FLOOR, Interference, interference, minimum_within, minimum_without, workspace
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left

_CLEAR = 1e-4  # the least eigenvalue of C, relative to the largest, that float32 may be trusted with
_FEW = 4  # one over the share of eigenvectors that are quicker found alone
_NEAR = 1e-6  # how near to a whole number the effective rank may come there, relative to itself


@method(
    "aswudi",
    source="SWUDI and ASWUDI, 2026. arXiv:2606.07289",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def aswudi(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    scale: float = 1.0,
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Minimise WUDI's interference in closed form, within the subspace of the effective rank of C.

    For a matrix, with S = sum_t w_t tau_t, and C and D as for `wudi`, C = V diag(l) V^T, eigenvalues at least 1e-8,
    K = ceil((sum sqrt(l))^2 / sum l) of them the largest: tau = scale * (S - S V_K V_K^T + D V_K diag(1 / l) V_K^T).

    There is no hyperparameter to tune. One eigendecomposition per matrix, in float64; in float32 for large float32
    matrices where the least eigenvalue is above 1e-4 of the largest and K is not in doubt. There, if at most a quarter
    of the eigenvectors are in V_K, or are not, only those are found, and what is not in V_K is left out of the inverse
    of C.

    Departures:
        None known.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        scale: Factor of the result; the paper has none.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors (authors), or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """

    def merge(tasks: Tasks) -> Array:
        objective = interference(tasks)
        result = _minimum(objective)
        del objective
        return merge(tasks.exact()) if result is None else result

    return scale * merged(deltas, weight, name, qkv, merge, single=True)


def _minimum(objective: Interference) -> Array | None:
    """None where float32 does not tell the effective rank."""
    xp = array_namespace(objective.c)
    if is_numpy_array(objective.c) and objective.c.dtype == np.float32 and has_lapack():
        return _minimum_by_few(objective)
    values, vectors = eigenvectors(objective.c)
    if objective.c.dtype != xp.float64 and not _is_certain(values):
        return None
    values = xp.clip(values, min=FLOOR)
    return minimum_within(objective, values, vectors, math.ceil(_effective_rank(values)))


def _minimum_by_few(objective: Interference) -> Array | None:
    """The same by eigenvectors of either side of the effective rank, if one of them is few."""
    reduced = tridiagonal(objective.c)
    if not _is_certain(values := reduced.eigenvalues()):
        return None
    n, count, values = values.size, math.ceil(_effective_rank(values)), values.astype(np.float32)
    rest = n - count
    if rest * _FEW <= n:
        return minimum_without(objective, values[:rest], reduced.eigenvectors(0, rest))
    if count * _FEW <= n:
        return minimum_within(objective, values[rest:], reduced.eigenvectors(rest, n), count)
    return minimum_within(objective, *eigenvectors(objective.c), count)


def _effective_rank(values: Array) -> float:
    xp = array_namespace(values)
    wide = xp.astype(values, xp.float64)
    effective = float(xp.sum(xp.sqrt(wide))) ** 2 / float(xp.sum(wide))
    # Rounding must not lift a whole number to the next.
    return max(1.0, min(effective * (1 - 1e-12), wide.shape[0]))


def _is_certain(values: Array) -> bool:
    """True if float32 eigenvalues determine the effective rank."""
    if not float(values[0]) > _CLEAR * float(values[-1]) > 0:
        return False
    effective = _effective_rank(values)
    return abs(effective - round(effective)) > _NEAR * effective


aswudi.delegates_to(vectors_left)
