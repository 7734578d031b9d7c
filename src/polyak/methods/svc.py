"""SVC: calibrate the singular values of a merge by what its models have along its directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from array_api_compat import array_namespace

from ..linalg.spectral import components, product, workspace
from . import Array, Delta, Deltas, In, Law, Name, Pattern, method
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, is_matrix, merged

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
    exclude: Pattern = EXCLUDE,
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Rescale each singular direction of the first model's delta by what the other models' deltas have along it.

    The first model is a merge, by any method (`recipe:`), the others are the T models it was made of. For a matrix,
    the merge's delta is M = U S V^T. Along u_r let a = u_r^T M, a_t = u_r^T tau_t and
    s_t = <a, a_t> / max(|a_t|^2, 1e-12); tau = U diag(gamma_r S_r) V^T with gamma_r = T / sum_t max(alpha, s_t).

    Vectors stay as the merge has them. gamma has no upper limit but 1 / alpha: a merge that was scaled down is inflated
    again, so its scale should be 1. M is decomposed as `tsv_m` does.

    Departures:
        Null directions (singular values of at most 1e-6 of the largest) are dropped.

    Args:
        deltas: (1 + T, *shape); the first is the merge's.
        name: The tensor's name.
        alpha: The least that counts as agreement; 0 stands for the 1 / T of the paper. 1 is advised for `tsv_m`.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none. The authors exclude none.
        conv: Whether tensors of three and more dimensions are vectors (authors), or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused` (authors), or `split` in three
            where each is square.
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
