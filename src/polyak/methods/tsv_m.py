"""TSV-M: task singular vectors, decorrelated between models."""

from __future__ import annotations

from ..linalg import joined_orthogonally, leading, workspace
from . import Array, Coefficient, Delta, Deltas, Law, Name, Pattern, method
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left


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
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Keep the leading singular directions of each task vector and decorrelate them between models before summing.

    For a matrix, w_t tau_t = U_t S_t V_t^T, cut to its k = max(1, r // T) largest singular values, where T is the
    number of models and r the smaller dimension. U = [U_1 ... U_T], and S and V likewise;
    tau = scale * polar(U) diag(S) polar(V)^T, where polar(X) = P Q^T for X = P Sigma Q^T.

    A single model is returned unchanged. Singular vectors come from the eigenvectors of the smaller Gram matrix, in
    float64, or from a singular value decomposition if a kept direction is below 1e-5 of the largest. Large float32
    matrices are decomposed in float32 where they are not of low rank: the leading eigenvectors of the Gram matrix, and
    some more, are computed in float32, and the task vector's directions within their span are kept. The polar factors
    of U and V are computed through bidiagonal matrices.

    Departures:
        With more models than r, the authors' code keeps no direction and returns zero. Null directions (singular values
        of at most 1e-6 of the largest) have arbitrary vectors; they are dropped here, from the task vectors and from U
        and V. Embeddings and heads are excluded; the authors exclude only text_projection.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        scale: The paper's alpha; the authors choose it on validation data from 0.1 to 3.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none. The authors:
            text_projection only.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors (authors), or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """

    def merge(tasks: Tasks) -> Array:
        parts = [leading(delta, tasks.rank // len(tasks)) for delta in tasks]
        return joined_orthogonally(parts)

    return scale * merged(deltas, weight, name, qkv, merge, single=True)


tsv_m.delegates_to(vectors_left)
