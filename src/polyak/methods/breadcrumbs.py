"""Model breadcrumbs: drop what is largest and what is smallest, and add up the rest."""

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
    """Drop the largest entries of each delta, keep the next largest, drop the rest, and add the weighted deltas.

    sparse_i = tau_i where |tau_i| is behind the int(gamma n) largest of n entries and among the max(1, int(d n))
    that follow, else 0;
    tau = scale * sum_i w_i sparse_i; with `normalize`, divided by sum_i w_i.

    Where int(gamma n) and the kept exceed n, fewer count as outliers: a density of 1 keeps everything. Among equal
    magnitudes the lowest index counts as the largest.

    Departures:
        The paper takes percentiles of each layer, the authors' code of each row, which is the default. That code keeps
        int(d n), which is nothing in rows of fewer than 1 / d entries, and where outliers and the kept exceed n it
        keeps fewer; mergekit takes fewer for outliers, as here.

    Args:
        deltas: (k, *shape).
        outliers: Which entries are too large.
        kept: Which entries are outliers or large enough to stay.
        norms: L1 norms of the deltas before and after.
        weight: Weight of each model; may be negative.
        density: Share that each model keeps: the authors' beta.
        gamma: Share of each model's largest entries that are dropped; mergekit has 0.01.
        granularity: Over what the entries compete: each `row` (last dimension) as in the authors' code, or the
            whole `tensor` (paper, mergekit).
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
