"""Iso-C: isotropic merging in the common subspace."""

from __future__ import annotations

from ..linalg import isotropic, workspace
from . import Coefficient, Delta, Deltas, Law, Name, Pattern, method
from ._matrices import NOT_MATRICES, Conv, Qkv, Vectors, merged, vectors_left


@method(
    "iso_c",
    source="Marczak et al., 2025. No Task Left Behind: Isotropic Model Merging. arXiv:2502.04959",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def iso_c(
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
    """Sum the task vectors and set all singular values of the sum to their mean.

    For a matrix, sum_t w_t tau_t = U S V^T; tau = scale * mean(S) U V^T.

    The spectrum of a single model is flattened too. U V^T comes from the eigenvectors of the smaller Gram matrix, in
    float64, or from a singular value decomposition if a relevant direction is below 1e-5 of the largest. For
    large float32 matrices of full rank it is found in float32 without singular vectors, through a bidiagonal matrix,
    with the error of a float32 singular value decomposition; the mean of S is the trace of the symmetric polar factor.

    Departures:
        Null directions of the sum (singular values of at most 1e-6 of the largest) are left out, of U V^T and of the
        mean: in the authors' code they get the full energy along arbitrary vectors, which matters for sums of low rank,
        such as of a few adapters. The authors exclude only text_projection; here embeddings and heads are excluded too.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        scale: The paper's alpha, chosen on validation data from 0.1 to 3.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none. The authors:
            text_projection only.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors (authors), or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """
    return scale * merged(deltas, weight, name, qkv, lambda tasks: isotropic(tasks.total()), single=True)


iso_c.delegates_to(vectors_left)
