"""CART: low-rank task vectors relative to the average."""

from __future__ import annotations

from typing import Annotated

from ..linalg import leading, product, workspace
from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, method
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left_unscaled


@method(
    "cart",
    source="Choi et al., 2024. Revisiting Weight Averaging for Model Merging. arXiv:2412.12153",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def cart(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    rank: Annotated[float, In(0, 1)] = 0.16,
    scale: float = 1.0,
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Average the models and add the low-rank parts of their differences from that average.

    For a matrix with smaller dimension r, tau = m + scale * sum_t SVD_k(w_t tau_t - m), where m = mean_t w_t tau_t and
    SVD_k keeps the k = max(1, int(rank r)) largest singular values.

    For vectors it is the average: differences from it sum to zero. Decompositions are as those of `tsv_m`; null
    directions are ignored.

    Departures:
        The authors' code merges only attention and MLP matrices; here all except `exclude` are merged. Null directions
        are ignored.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        rank: Fraction of the directions that each difference keeps; 1 with `scale` 1 is the average alone.
        scale: The paper's lambda; 2.3 has been used for ViT-B/32 with eight tasks.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none. The authors merge only
            attention and MLP matrices.
        vector_1d: Change of vectors: the `mean` of the weighted task vectors, or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector`, or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused`, or `split` into three if each is square.
    """

    def merge(tasks: Tasks) -> Array:
        mean = tasks.total() / len(tasks)
        merged = mean + 0.0
        for delta in tasks:
            merged += scale * product(*leading(delta - mean, int(rank * tasks.rank)))
        return merged

    return merged(deltas, weight, name, qkv, merge, single=True)


cart.delegates_to(vectors_left_unscaled)
