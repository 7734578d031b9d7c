"""SVC: calibration of a merge's singular values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from array_api_compat import array_namespace

from ..linalg import components, product, workspace
from . import Array, Delta, Deltas, In, Law, Name, Pattern, method
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, is_matrix, merged

_TINY = 1e-12


@method(
    "svc",
    source="Singular value calibration, 2026. arXiv:2602.05536",
    models=(2, None),
    workspace=workspace,
    laws={Law.HOMOGENEOUS},
)
def svc(
    deltas: Deltas,
    name: Name,
    *,
    alpha: Annotated[float, In(0, 1)] = 0.0,
    exclude: Pattern = NOT_MATRICES,
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Rescale each singular value of a merge by how strongly the merged models agree along its direction.

    The first model is a merge, by any method (`recipe:`), the others are the T models that were merged. For a matrix,
    the merge's task vector is M = U S V^T. Along u_r let a = u_r^T M, a_t = u_r^T tau_t and s_t = <a, a_t> /
    max(|a_t|^2, 1e-12); tau = U diag(gamma_r S_r) V^T with gamma_r = T / sum_t max(alpha, s_t).

    Vectors keep the merge's values. gamma is bounded by 1 / alpha only: a merge that was scaled down is scaled up
    again, so its scale should be 1. M is decomposed as `tsv_m` does.

    Departures:
        Null directions (singular values of at most 1e-6 of the largest) are dropped.

    Args:
        deltas: (1 + T, *shape); the first is that of the merge.
        name: The tensor's name.
        alpha: Minimum agreement; 0: the paper's 1 / T. 1 is advised for `tsv_m`.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none. The authors exclude
            none.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """
    floor = alpha or 1 / (deltas.shape[0] - 1)
    return merged(deltas, None, name, qkv, lambda tasks: _calibrated(tasks, floor))


def _calibrated(tasks: Tasks, alpha: float) -> Array:
    u, s, v = components(tasks[0])
    xp = array_namespace(s)
    along = v * s  # u^T M, transposed: (d_in, r)
    agreement = xp.zeros_like(s)
    for t in range(1, len(tasks)):
        own = tasks[t].T @ u
        share = xp.sum(along * own, axis=0) / xp.clip(xp.sum(own * own, axis=0), min=_TINY)
        agreement = agreement + xp.clip(share, min=alpha)
    return product(u, s * (len(tasks) - 1) / agreement, v)


@svc.delegates_to
def _vectors(
    name: str, shape: tuple[int, ...], k: int, exclude: str, conv: Conv
) -> tuple[str, Mapping[str, Any]] | None:
    """Vectors are the merge's."""
    if is_matrix(name, shape, exclude, conv):
        return None
    return "task_arithmetic", {"weight": [1.0] + [0.0] * (k - 1)}
