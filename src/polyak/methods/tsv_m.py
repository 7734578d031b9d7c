"""TSV-M: what is most important in each model, made orthogonal."""

from __future__ import annotations

from ..linalg.spectral import joined_orthogonally, leading, workspace
from . import Array, Coefficient, Delta, Deltas, Law, Name, Pattern, method
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, Vectors, merged, vectors_left


@method(
    "tsv_m",
    source="Gargiulo et al., 2025. Task Singular Vectors. arXiv:2412.00081",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def tsv_m(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    scale: float = 1.0,
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Keep the leading singular directions of each delta, and make those of all models orthogonal before adding them.

    For a matrix, w_t tau_t = U_t S_t V_t^T, cut to its k = max(1, r // T) largest singular values, where T is the
    number of models and r the smaller dimension. U = [U_1 ... U_T], and S and V likewise;
    tau = scale * polar(U) diag(S) polar(V)^T, where polar(X) = P Q^T for X = P Sigma Q^T.

    One model comes back as it is. Singular vectors come from the eigenvectors of the smaller Gram matrix, in float64,
    or where those are not exact enough from a singular value decomposition: where a kept direction lies below 1e-5 of
    the largest. Large float32 matrices are decomposed in float32 where they are not of low rank: of the Gram matrix the
    leading eigenvectors, and some more, are found in float32, and the delta's own directions in their span are kept.
    The polar factors of U and V come by way of bidiagonal matrices.

    Departures:
        For more models than r the authors' code keeps no direction, and with that nothing. Null directions (singular
        values of at most 1e-6 of the largest) have arbitrary vectors, and are dropped here, from the deltas and from U
        and V. Embeddings and heads are left out, by the authors text_projection alone.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        scale: The paper's alpha; the authors choose it on validation data from 0.1 to 3.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none. The authors have
            text_projection alone.
        vector_1d: What is added for vectors: `scale` times the `mean` of the weighted deltas (authors), or `zero`.
        conv: Whether tensors of three and more dimensions are vectors (authors), or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused` (authors), or `split` in three
            where each is square.
    """

    def merge(tasks: Tasks) -> Array:
        parts = [leading(delta, tasks.rank // len(tasks)) for delta in tasks]
        return joined_orthogonally(parts)

    return scale * merged(deltas, weight, name, qkv, merge, single=True)


tsv_m.delegates_to(vectors_left)
