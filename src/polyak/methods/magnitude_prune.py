"""Magnitude pruning of task vectors."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, KernelCall, Law, PerModel, method
from ._breadcrumbs import bounds
from ._passes import Cut, Top
from ._sparsify import Granularity, TopK, survivors, trimmed
from ._weights import has_a_sum


def _survivors(density: tuple[float, ...], topk: TopK, granularity: Granularity) -> Top | None:
    return survivors(density, topk, granularity)


@method(
    "magnitude_prune",
    source="Yadav et al., 2023. TIES-Merging. arXiv:2306.01708 (its trim alone)",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def magnitude_prune(
    deltas: Deltas,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.2, In(0, 1))],
    topk: TopK = "exact",
    granularity: Granularity = "tensor",
    normalize: bool = False,
    scale: float = 1.0,
) -> Delta:
    """Trim each task vector to its top-k entries and add the weighted rest to the base: TIES without sign election.

    trimmed_i = tau_i where |tau_i| is among the max(1, int(density n)) largest of n entries, else 0;
    tau = scale * sum_i w_i trimmed_i; with `normalize`, divided by sum_i w_i.

    Departures:
        The trim of TIES on its own, which the paper does not use; PEFT implements it for adapters.

    Args:
        deltas: (k, *shape).
        kept: Entries that remain after the trim.
        weight: Weight of each model; may be negative.
        density: Fraction of entries that each model keeps.
        topk: `exact` keeps exactly max(1, k), ties broken by the lowest index; `official` keeps k + 1 entries and all
            ties, as the code of TIES' authors.
        granularity: Scope of the trim: each `tensor`, or the whole `model`.
        normalize: Divide by the sum of the weights.
        scale: Factor of the result.
    """
    xp = array_namespace(deltas)
    total = scale * xp.sum(weight * trimmed(deltas, kept), axis=0)
    return total / xp.sum(weight) if normalize else total


magnitude_prune.requires(has_a_sum)


@magnitude_prune.kernel
def _kernel(kept: Cut | None, weight: Any, normalize: bool, scale: float) -> KernelCall:
    import numpy as np

    from ..kernels.breadcrumbs import between_and_add

    factor = float(scale / weight.sum()) if normalize else float(scale)
    return KernelCall(between_and_add, (*bounds(len(weight), kept), np.ones_like(weight), weight, factor))
