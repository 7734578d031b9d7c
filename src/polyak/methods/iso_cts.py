"""Iso-CTS: equal singular values, and room for what only one model has."""

from __future__ import annotations

from ..linalg.spectral import components, isotropic, joined_orthogonally, leading, workspace
from . import Array, Coefficient, Delta, Deltas, Fraction, Law, Name, Pattern, method
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, Vectors, merged, vectors_left


@method(
    "iso_cts",
    source="Marczak et al., 2025. No Task Left Behind: Isotropic Model Merging. arXiv:2502.04959",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def iso_cts(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    common: Fraction = 0.8,
    scale: float = 1.0,
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Join the leading directions of the sum with each model's own, make them orthogonal and equally strong.

    For a matrix with smaller dimension r and T models, k_t = round((r - int(common r)) / T) and k_c = r - T k_t. U_c,
    S_c, V_c are the k_c leading singular triplets of sum_t w_t tau_t; U_t, S_t, V_t the k_t leading ones of
    (1 - U_c U_c^T) w_t tau_t. With U = [U_1 ... U_T U_c], S and V likewise,
    tau = scale * mean(S) polar(U) polar(V)^T, where polar(X) = P Q^T for X = P Sigma Q^T.

    Where there is no room for own directions (k_t = 0) it is Iso-C. Decompositions are as those of `tsv_m`.

    Departures:
        Null directions (singular values of at most 1e-6 of the largest) are dropped everywhere and do not count in the
        mean; the authors' code keeps them, with arbitrary vectors. Embeddings and heads are left out, by the authors
        text_projection alone.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        common: Share of directions that are the sum's.
        scale: The paper's alpha, chosen on validation data from 0.1 to 3.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none. The authors have
            text_projection alone.
        vector_1d: What is added for vectors: `scale` times the `mean` of the weighted deltas (authors), or `zero`.
        conv: Whether tensors of three and more dimensions are vectors (authors), or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused` (authors), or `split` in three
            where each is square.
    """

    def merge(tasks: Tasks) -> Array:
        own = round((tasks.rank - int(tasks.rank * common)) / len(tasks))
        own = min(own, tasks.rank // len(tasks))  # rounding up may take more than there is
        if own == 0:
            return isotropic(tasks.total())
        shared = tasks.rank - own * len(tasks)
        return _joined(tasks, own, shared)

    return scale * merged(deltas, weight, name, qkv, merge)


def _joined(tasks: Tasks, own: int, shared: int) -> Array:
    sum_of_all = components(tasks.total(), shared)
    parts = [leading(delta - sum_of_all.u @ (sum_of_all.u.T @ delta), own) for delta in tasks]
    return joined_orthogonally([*parts, sum_of_all], equally=True)


iso_cts.delegates_to(vectors_left)
