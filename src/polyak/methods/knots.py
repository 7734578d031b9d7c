"""KnOTS: merge task vectors in a shared basis."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, Fraction, Law, Name, Pattern, method
from ._knots import aligned, restored, workspace
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, tasks_of, vectors_left
from ._passes import Cut, Top, answer
from ._sign_election import Function, elect
from ._sparsify import Granularity, TopK, survivors, trimmed, where

Merge: TypeAlias = Literal["ties", "linear"]


def _survivors(weight: tuple[float, ...], merge: Merge, density: float, granularity: Granularity) -> Top | None:
    if merge == "linear" or granularity == "tensor":
        return None
    return survivors((density,) * len(weight), "official", "model", _representations)


def _representations(deltas: Array, weight: Array, name: str, qkv: Qkv) -> Array:
    """Those of all parts of a matrix, flat: (k, n)."""
    stacks = [aligned(tasks).stack for tasks in tasks_of(deltas, weight, name, qkv)]
    xp = array_namespace(stacks[0])
    return xp.concat([xp.reshape(stack, (stack.shape[0], -1)) for stack in stacks], axis=1)


@method(
    "knots",
    source="Stoica et al., 2025. Model merging with SVD to tie the Knots. arXiv:2410.19735",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def knots(
    deltas: Deltas,
    name: Name,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    *,
    weight: Coefficient,
    merge: Merge = "ties",
    density: Fraction = 0.2,
    topk: TopK = "official",
    granularity: Granularity = "tensor",
    function: Function = "mean",
    scale: float = 0.6,
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Express all task vectors in a shared SVD basis of the output space, and merge them there by TIES.

    For a matrix, X = [w_1 tau_1 ... w_T tau_T] = U S V^T; with V^T cut into T blocks of columns V_t, the
    representations R_t = S V_t are merged into R as `ties` does, and tau = scale * U R.

    Designed for adapters (`lora:` on a model). The signs of singular vectors cancel; if singular values are equal, the
    basis is arbitrary, and so is the choice of trimmed entries.

    Departures:
        Trimming is per tensor by default; the authors trim the representations of all layers as one vector, which is
        `granularity: model`. They drop singular values up to 1e-5, here it is up to 1e-6 of the largest.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        kept: Entries of the representations to keep, if they are ranked over the model.
        weight: Factor of each task vector, applied first (paper: 1).
        merge: `ties`; or `linear`, the sum of the representations, which is that of the task vectors.
        density: Fraction of entries that each representation keeps; the paper has 0.2, and 1 for language models.
        topk: `official` keeps k + 1 entries and all ties; `exact` keeps max(1, k), the lowest index first.
        granularity: Scope of the trim: each `tensor`, or the whole `model` (authors), with `topk: official` alone. Then
            each matrix is decomposed once more for each sweep of the search, three as a rule.
        function: Merge agreeing entries by `mean`, `sum`, or `max`, the largest magnitude.
        scale: Factor of the result; the paper has 0.6, and 0.4 for language models.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors, or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector`, or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused`, or `split` into three if each is square.
    """

    def merge_there(tasks: Tasks) -> Array:
        basis, stack = aligned(tasks)
        xp = array_namespace(stack)
        if merge == "linear" or not basis.shape[1]:
            return restored(basis, xp.sum(stack, axis=0))
        sparse = _above(stack, kept) if kept is not None else _trimmed(stack, density, topk)
        return restored(basis, elect(sparse, xp.ones_like(sparse[:, :1, :1]), function, 0.0))

    return scale * merged(deltas, weight, name, qkv, merge_there)


def _trimmed(stack: Array, density: float, topk: TopK) -> Array:
    """Each representation without its smallest entries."""
    request = survivors((density,) * stack.shape[0], topk, "tensor")
    return trimmed(stack, answer(request, {"deltas": stack}) if request else None)


def _above(stack: Array, kept: Cut) -> Array:
    """Each representation without what is below the model's boundary."""
    xp = array_namespace(stack)
    return xp.stack([where(xp.abs(stack[i]) >= float(kept.value[i, 0]), stack[i]) for i in range(stack.shape[0])])


@knots.requires
def _keeps_all_equals(granularity: Granularity, topk: TopK) -> str | None:
    if granularity == "model" and topk == "exact":
        return "`granularity: model` keeps all equals of a boundary: it goes with `topk: official`, not with `exact`."
    return None


knots.delegates_to(vectors_left)
