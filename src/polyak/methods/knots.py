"""KnOTS: align all deltas in one basis, then merge them there."""

from __future__ import annotations

from typing import Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, Fraction, Law, Name, Pattern, method
from ._elect import Function, elect
from ._knots import aligned, restored, workspace
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, Vectors, merged, vectors_left
from ._passes import answer
from ._sparsify import TopK, survivors, trimmed

Granularity: TypeAlias = Literal["tensor"]
Merge: TypeAlias = Literal["ties", "linear"]


@method(
    "knots",
    source="Stoica et al., 2025. Model merging with SVD to tie the Knots. arXiv:2410.19735",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def knots(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    merge: Merge = "ties",
    density: Fraction = 0.2,
    topk: TopK = "official",
    granularity: Granularity = "tensor",
    function: Function = "mean",
    scale: float = 0.6,
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Write all deltas in one basis of what they put out, merge them there by TIES, and go back.

    For a matrix, X = [w_1 tau_1 ... w_T tau_T] = U S V^T; with V^T cut into T blocks of columns V_t, the
    representations R_t = S V_t are merged into R as `ties` does, and tau = scale * U R.

    Made for adapters (`lora:` on a model). The signs of singular vectors cancel; where singular values are equal, the
    basis is arbitrary, and so is what is trimmed.

    Departures:
        Trimming is per tensor; the authors trim the representations of all layers as one vector. They drop singular
        values up to 1e-5, here it is up to 1e-6 of the largest.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        merge: `ties`; or `linear`, the sum of the representations, which is that of the deltas.
        density: Share of entries that each representation keeps; the paper has 0.2, and 1 for language models.
        topk: `official` keeps k + 1 entries and all their equals; `exact` keeps max(1, k), the lowest index first.
        granularity: Over what the entries compete: each `tensor`.
        function: How the agreeing entries are merged: `mean`, `sum`, or the `max` by magnitude.
        scale: What the result is multiplied by; the paper has 0.6, and 0.4 for language models.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none.
        vector_1d: What is added for vectors: `scale` times the `mean` of the weighted deltas, or `zero`.
        conv: Whether tensors of three and more dimensions are vectors, or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused`, or `split` in three where each
            is square.
    """

    def merge_there(tasks: Tasks) -> Array:
        basis, stack = aligned(tasks)
        xp = array_namespace(stack)
        if merge == "linear" or not basis.shape[1]:
            return restored(basis, xp.sum(stack, axis=0))
        request = survivors((density,) * len(tasks), topk, granularity)
        sparse = trimmed(stack, answer(request, {"deltas": stack}) if request else None)
        return restored(basis, elect(sparse, xp.ones_like(sparse[:, :1, :1]), function, 0.0))

    return scale * merged(deltas, weight, name, qkv, merge_there)


knots.leaves(vectors_left)
