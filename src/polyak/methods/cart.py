"""CART: task vectors from the average, cut to low rank."""

from __future__ import annotations

from typing import Annotated

from ..linalg.spectral import leading, product, workspace
from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, method
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, Vectors, merged, vectors_left_unscaled


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
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Average the models and add the low-rank parts of their differences from that average.

    For a matrix with smaller dimension r, tau = m + scale * sum_t SVD_k(w_t tau_t - m), where m = mean_t w_t tau_t and
    SVD_k keeps the k = max(1, int(rank r)) largest singular values.

    For vectors it is the average: differences from it sum to zero. Decompositions are as those of `tsv_m`; null
    directions count for nothing.

    Departures:
        The code that this follows takes matrices of attention and MLP alone, here all but `exclude` are taken. Null
        directions count for nothing.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        rank: Share of the directions that each difference keeps; 1 with `scale` 1 is the average alone.
        scale: The paper's lambda; 2.3 has been used for ViT-B/32 with eight tasks.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none. The authors take the
            matrices of attention and MLP alone.
        vector_1d: What is added for vectors: the `mean` of the weighted deltas, or `zero`.
        conv: Whether tensors of three and more dimensions are vectors, or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused`, or `split` in three where each
            is square.
    """

    def merge(tasks: Tasks) -> Array:
        mean = tasks.total() / len(tasks)
        merged = mean + 0.0
        for delta in tasks:
            merged += scale * product(*leading(delta - mean, int(rank * tasks.rank)))
        return merged

    return merged(deltas, weight, name, qkv, merge, single=True)


cart.delegates_to(vectors_left_unscaled)
