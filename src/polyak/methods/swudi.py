"""SWUDI: WUDI's descent in closed form, for a time, in the leading subspace."""

from __future__ import annotations

import math
from typing import Annotated

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, method
from ._interference import FLOOR, filtered, interference, workspace
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, Vectors, merged, vectors_left


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
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Follow the gradient flow of WUDI's interference from the sum of the deltas, along C's leading eigenvectors.

    For a matrix, with S = sum_t w_t tau_t, and C and D as for `wudi`, C = V diag(l) V^T, eigenvalues at least 1e-8:
    tau = scale * (S - S V diag(f) V^T + D V diag(f / l) V^T), where f = 1 - exp(-l time) for the ceil(rank d_in)
    largest eigenvalues and 0 for the others.

    C and D are made of deltas that are divided by their norm, so that one time suits all matrices. One
    eigendecomposition a matrix, in float64.

    Departures:
        None known.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        rank: Share of the eigenvectors that are followed; the paper's rho.
        time: How long; the paper's t.
        scale: Factor of the result; the paper has none.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none.
        vector_1d: What is added for vectors: `scale` times the `mean` of the weighted deltas (authors), or `zero`.
        conv: Whether tensors of three and more dimensions are vectors (authors), or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused` (authors), or `split` in three
            where each is square.
    """

    def merge(tasks: Tasks) -> Array:
        found = interference(tasks)
        xp = array_namespace(found.c)
        values, vectors = xp.linalg.eigh(found.c)
        count = math.ceil(rank * values.shape[0])
        values, vectors = xp.clip(values, min=FLOOR)[-count or None :], vectors[:, -count or None :]
        return filtered(found, values, vectors, 1 - xp.exp(-time * values)) if count else found.total

    return scale * merged(deltas, weight, name, qkv, merge)


swudi.delegates_to(vectors_left)
