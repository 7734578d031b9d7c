"""Iso-C: the sum of all models with equal singular values."""

from __future__ import annotations

from ..linalg.spectral import isotropic, workspace
from . import Coefficient, Delta, Deltas, Law, Name, Pattern, method
from ._matrices import EXCLUDE, Conv, Qkv, Vectors, merged, vectors_left


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
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Add the deltas up and give the sum equal singular values, their mean.

    For a matrix, sum_t w_t tau_t = U S V^T; tau = scale * mean(S) U V^T.

    A single model's spectrum is flattened too. U V^T comes from the eigenvectors of the smaller Gram matrix, in
    float64, or from a singular value decomposition where a direction that counts lies below 1e-5 of the largest. For
    large float32 matrices of full rank it is found in float32 without singular vectors, by way of a bidiagonal matrix,
    with the error of a float32 singular value decomposition; the mean of S is the trace of the symmetric polar factor.

    Departures:
        Null directions of the sum (singular values of at most 1e-6 of the largest) are left out, of U V^T and of the
        mean: in the authors' code they get the full energy along arbitrary vectors, which matters for sums of low rank,
        such as of a few adapters. The authors leave out text_projection alone, here embeddings and heads are too.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        scale: The paper's alpha, chosen on validation data from 0.1 to 3.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none. The authors have
            text_projection alone.
        vector_1d: What is added for vectors: `scale` times the `mean` of the weighted deltas (authors), or `zero`.
        conv: Whether tensors of three and more dimensions are vectors (authors), or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused` (authors), or `split` in three
            where each is square.
    """
    return scale * merged(deltas, weight, name, qkv, lambda tasks: isotropic(tasks.total()), single=True)


iso_c.delegates_to(vectors_left)
