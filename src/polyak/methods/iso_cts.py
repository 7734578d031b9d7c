"""Iso-CTS: isotropic merging in common and task-specific subspaces."""

from __future__ import annotations

from ..linalg import components, isotropic, joined_orthogonally, leading, workspace
from . import Array, Coefficient, Delta, Deltas, Fraction, Law, Name, Pattern, method
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left


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
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Combine the sum's leading singular directions with each model's own, orthogonalise, and equalise their strength.

    For a matrix with smaller dimension r and T models, k_t = round((r - int(common r)) / T) and k_c = r - T k_t. U_c,
    S_c, V_c are the k_c leading singular triplets of sum_t w_t tau_t; U_t, S_t, V_t the k_t leading ones of
    (1 - U_c U_c^T) w_t tau_t. With U = [U_1 ... U_T U_c], S and V likewise,
    tau = scale * mean(S) polar(U) polar(V)^T, where polar(X) = P Q^T for X = P Sigma Q^T.

    Without room for task-specific directions (k_t = 0) it is Iso-C. Decompositions are as those of `tsv_m`.

    Departures:
        Null directions (singular values of at most 1e-6 of the largest) are dropped everywhere and do not count in the
        mean; the authors' code keeps them, with arbitrary vectors. Embeddings and heads are excluded; the authors
        exclude only text_projection.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        common: Fraction of directions that are the sum's.
        scale: The paper's alpha, chosen on validation data from 0.1 to 3.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none. The authors:
            text_projection only.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors (authors), or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
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
