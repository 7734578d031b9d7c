"""Breadcrumbs with TIES."""

from __future__ import annotations

from typing import Annotated, Any

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, KernelCall, Law, PerModel, method
from ._breadcrumbs import Rescale, Scope, ask_kept, ask_norms, ask_outliers, between, bounds, cut_tile
from ._passes import Cut, Sum
from ._sign_election import Function, ZeroSum, elect, sign_of_majority, votes
from ._sparsify import norm_kept


def _majority(zero_sum: ZeroSum) -> Sum | None:
    return Sum(_votes, kernel=_votes_of_tile) if zero_sum == "majority" else None


def _votes(deltas: Array, outliers: Cut | None, kept: Cut | None, norms: Array | None, weight: Array) -> Array:
    return votes(_rescaled(weight, norms) * between(deltas, outliers, kept))


def _rescaled(weight: Array, norms: Array | None) -> Array:
    return weight if norms is None else weight * norm_kept(norms, weight)


@method(
    "breadcrumbs_ties",
    source="Davari and Belilovsky, 2024. Model Breadcrumbs. arXiv:2312.06795. "
    "Yadav et al., 2023. TIES-Merging. arXiv:2306.01708",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def breadcrumbs_ties(
    deltas: Deltas,
    outliers: Annotated[Cut | None, FirstPass(ask_outliers)],
    kept: Annotated[Cut | None, FirstPass(ask_kept)],
    norms: Annotated[Array | None, FirstPass(ask_norms)],
    majority: Annotated[Array | None, FirstPass(_majority)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.2, In(0, 1, above=True))],
    gamma: Annotated[Array, PerModel(0.1, In(0, 1))],
    granularity: Scope = "row",
    rescale: Rescale = "none",
    function: Function = "mean",
    zero_sum: ZeroSum = "drop",
    scale: float = 1.0,
) -> Delta:
    """Drop the largest and the smallest entries of each task vector, elect a sign per entry, average those that agree.

    sparse_i as in `breadcrumbs`;
    s = sign(sum_i w_i sparse_i);
    tau = scale * sum_i w_i sparse_i [w_i sparse_i s > 0] / sum_i w_i [w_i sparse_i s > 0].

    Departures:
        A combination introduced by mergekit, without a paper. mergekit trims per tensor, sums agreeing entries
        (`function: sum`), and keeps int(d n) entries even if that is zero.

    Args:
        deltas: (k, *shape).
        outliers: The outliers.
        kept: The outliers and the entries that are kept.
        norms: L1 norms of the task vectors before and after dropping.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model in election and merge.
        density: Fraction of entries that each model keeps.
        gamma: Fraction of each model's largest entries that are dropped; mergekit has 0.01.
        granularity: Scope of the ranking: each `row` (last dimension), or the whole `tensor` (mergekit).
        rescale: `l1` restores each tensor's L1 norm; `none`.
        function: Merge agreeing entries by `mean`, `sum` (mergekit), or `max`, the largest magnitude.
        zero_sum: Sign of entries whose sum is exactly zero: `drop` keeps the base's value; `majority` uses the majority
            sign of the tensor, `positive` the positive sign (mergekit).
        scale: Factor of the result.
    """
    sparse = between(deltas, outliers, kept)
    if norms is not None:
        sparse = sparse * norm_kept(norms, weight)
    return scale * elect(weight * sparse, weight, function, sign_of_majority(majority, zero_sum))


def _cut_and_rescale_tile(deltas: Any, outliers: Cut | None, kept: Cut | None, norms: Any, weight: Any) -> None:
    cut_tile(deltas, outliers, kept)
    if norms is not None:
        deltas *= norm_kept(norms, weight)[:, None]


def _votes_of_tile(deltas: Any, outliers: Cut | None, kept: Cut | None, norms: Any, weight: Any) -> list[float]:
    from ..kernels.sign_election import sign_votes

    _cut_and_rescale_tile(deltas, outliers, kept, norms, weight)
    return [sign_votes(deltas, weight)]


@breadcrumbs_ties.kernel
def _kernel(
    outliers: Cut | None,
    kept: Cut | None,
    norms: Any,
    majority: Any,
    weight: Any,
    function: Function,
    zero_sum: ZeroSum,
    scale: float,
) -> KernelCall:
    import numpy as np

    from ..kernels.breadcrumbs import between_and_elect
    from ..kernels.sign_election import FUNCTIONS

    factor = np.ones_like(weight) if norms is None else norm_kept(norms, weight)
    tie = float(sign_of_majority(majority, zero_sum))
    cuts = bounds(len(weight), kept, outliers)
    return KernelCall(between_and_elect, (*cuts, factor, weight, FUNCTIONS[function], tie, float(scale)))
