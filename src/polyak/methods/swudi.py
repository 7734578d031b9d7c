"""SWUDI: the gradient flow of WUDI in closed form."""

from __future__ import annotations

import math
from typing import Annotated

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, method
from ._interference import FLOOR, filtered, interference, workspace
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left


@method(
    "swudi",
    source="SWUDI and ASWUDI, 2026. arXiv:2606.07289",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def swudi(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    rank: Annotated[float, In(0, 1)] = 0.65,
    time: Annotated[float, In(0, math.inf)] = 1300.0,
    scale: float = 1.0,
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Follow the gradient flow of WUDI's interference for a given time, within the leading eigenvectors of C.

    For a matrix, with S = sum_t w_t tau_t, and C and D as for `wudi`, C = V diag(l) V^T, eigenvalues at least 1e-8:
    tau = scale * (S - S V diag(f) V^T + D V diag(f / l) V^T), where f = 1 - exp(-l time) for the ceil(rank d_in)
    largest eigenvalues and 0 for the others.

    C and D are computed from task vectors that are divided by their norm, so that one time fits all matrices. One
    eigendecomposition per matrix, in float64.

    Departures:
        None known.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        rank: Fraction of the eigenvectors that are followed; the paper's rho.
        time: Time of the flow; the paper's t.
        scale: Factor of the result; the paper has none.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors (authors), or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """

    def merge(tasks: Tasks) -> Array:
        objective = interference(tasks)
        xp = array_namespace(objective.c)
        values, vectors = xp.linalg.eigh(objective.c)
        count = math.ceil(rank * values.shape[0])
        values, vectors = xp.clip(values, min=FLOOR)[-count or None :], vectors[:, -count or None :]
        return filtered(objective, values, vectors, 1 - xp.exp(-time * values)) if count else objective.total

    return scale * merged(deltas, weight, name, qkv, merge)


swudi.delegates_to(vectors_left)
