"""Model Breadcrumbs: drop outliers and small entries of the task vectors."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, KernelCall, Law, PerModel, method
from ._breadcrumbs import Rescale, Scope, ask_kept, ask_norms, ask_outliers, between, bounds
from ._passes import Cut
from ._sparsify import norm_kept
from ._weights import has_a_sum


@method(
    "breadcrumbs",
    source="Davari and Belilovsky, 2024. Model Breadcrumbs. arXiv:2312.06795",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def breadcrumbs(
    deltas: Deltas,
    outliers: Annotated[Cut | None, FirstPass(ask_outliers)],
    kept: Annotated[Cut | None, FirstPass(ask_kept)],
    norms: Annotated[Array | None, FirstPass(ask_norms)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.2, In(0, 1, above=True))],
    gamma: Annotated[Array, PerModel(0.1, In(0, 1))],
    granularity: Scope = "row",
    rescale: Rescale = "none",
    normalize: bool = False,
    scale: float = 1.0,
) -> Delta:
    """Drop the largest and the smallest entries of each task vector, and add the weighted rest to the base.

    sparse_i = tau_i where |tau_i| is behind the int(gamma n) largest of n entries and among the max(1, int(d n))
    that follow, else 0;
    tau = scale * sum_i w_i sparse_i; with `normalize`, divided by sum_i w_i.

    Where int(gamma n) and the kept exceed n, fewer count as outliers: a density of 1 keeps everything. Of equal
    magnitudes, the lowest index counts as the largest.

    Departures:
        The paper uses percentiles per layer, the authors' code per row, which is the default. That code keeps int(d n)
        entries, which is zero in rows of fewer than 1 / d entries; if outliers and kept entries exceed n it keeps
        fewer, whereas mergekit drops fewer outliers, as here.

    Args:
        deltas: (k, *shape).
        outliers: The outliers.
        kept: The outliers and the entries that are kept.
        norms: L1 norms of the task vectors before and after dropping.
        weight: Weight of each model; may be negative.
        density: Fraction of entries that each model keeps: the authors' beta.
        gamma: Fraction of each model's largest entries that are dropped; mergekit has 0.01.
        granularity: Scope of the ranking: each `row` (last dimension; authors' code), or the whole `tensor` (paper,
            mergekit).
        rescale: `l1` restores each tensor's L1 norm; `none`.
        normalize: Divide by the sum of the weights.
        scale: The paper's alpha; the authors suggest 0.4.
    """
    xp = array_namespace(deltas)
    sparse = between(deltas, outliers, kept)
    if norms is not None:
        sparse = sparse * norm_kept(norms, weight)
    total = scale * xp.sum(weight * sparse, axis=0)
    return total / xp.sum(weight) if normalize else total


breadcrumbs.requires(has_a_sum)


@breadcrumbs.kernel
def _kernel(
    outliers: Cut | None, kept: Cut | None, norms: Any, weight: Any, normalize: bool, scale: float
) -> KernelCall:
    import numpy as np

    from ..kernels.breadcrumbs import between_and_add

    rescaled = weight if norms is None else weight * norm_kept(norms, weight)
    factor = float(scale / weight.sum()) if normalize else float(scale)
    cuts = bounds(len(weight), kept, outliers)
    return KernelCall(between_and_add, (*cuts, np.ones_like(weight), rescaled, factor))
