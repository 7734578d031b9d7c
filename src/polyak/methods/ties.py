"""TIES: trim, elect a sign, merge what has it."""

from __future__ import annotations

from typing import Annotated, Any

from ._api import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, method
from ._elect import Function, ZeroSum, elect, sign_of_majority, votes
from ._passes import Cut, Sum, Top
from ._sparsify import Granularity, TopK, survivors, trimmed


def _survivors(density: tuple[float, ...], topk: TopK, granularity: Granularity) -> Top | None:
    return survivors(density, topk, granularity)


def _majority(granularity: Granularity, zero_sum: ZeroSum) -> Sum | None:
    return Sum(_votes, scope=granularity, fused=_votes_of_tile) if zero_sum == "majority" else None


def _votes(deltas: Array, kept: Cut | None, weight: Array) -> Array:
    return votes(weight * trimmed(deltas, kept))


@method(
    "ties",
    source="Yadav et al., 2023. TIES-Merging. arXiv:2306.01708",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.HOMOGENEOUS, Law.ELEMENTWISE},
)
def ties(
    deltas: Deltas,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    majority: Annotated[Array | None, FirstPass(_majority)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.2, In(0, 1))],
    topk: TopK = "official",
    granularity: Granularity = "tensor",
    function: Function = "mean",
    zero_sum: ZeroSum = "drop",
    scale: float = 1.0,
) -> Delta:
    """Trim each delta to its largest entries, elect a sign for every entry, and merge the deltas that have it.

    trimmed_i = tau_i where |tau_i| reaches the density-th quantile, else 0;
    s = sign(sum_i w_i trimmed_i);
    tau = scale * sum_i w_i trimmed_i [w_i trimmed_i s > 0] / sum_i w_i [w_i trimmed_i s > 0].

    Args:
        deltas: (k, *shape).
        kept: Which entries survive the trim.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model in election and merge; the paper has 1.
        density: Share of entries that each model keeps; the paper has 0.2.
        topk: `official` keeps k + 1 entries and all their equals, as the authors' code; `exact` keeps exactly
            max(1, k), as the paper, the lowest index among equals.
        granularity: Over what the entries compete: each `tensor`, or the whole `model` as in the paper and the
            authors' code.
        function: How the agreeing entries are merged: `mean`, `sum`, or the `max` by magnitude.
        zero_sum: What becomes of entries whose sum is exactly zero: `drop` keeps the base's; `majority` gives them
            the sign of most entries (the authors' code, which takes the negative where they balance; we take
            none), at the cost of one more pass over all inputs; `positive` gives them that sign (mergekit).
        scale: The paper's lambda.
    """
    return scale * elect(weight * trimmed(deltas, kept), weight, function, sign_of_majority(majority, zero_sum))


def _votes_of_tile(deltas: Any, kept: Cut | None, weight: Any) -> list[float]:
    from ..kernels.elect import sign_votes

    _trim_tile(deltas, kept)
    return [sign_votes(deltas, weight)]


def _trim_tile(deltas: Any, kept: Cut | None) -> None:
    from ..kernels.sparsify import trim

    if kept is not None:
        trim(deltas, kept.value, kept.last, kept.row, kept.start)


@ties.fused
def _fused(
    out: Any,
    deltas: Any,
    kept: Cut | None,
    majority: Any,
    *,
    weight: Any,
    density: Any,
    topk: TopK,
    granularity: Granularity,
    function: Function,
    zero_sum: ZeroSum,
    scale: float,
) -> None:
    from ..kernels.elect import FUNCTIONS
    from ..kernels.elect import elect as elect_tile

    _trim_tile(deltas, kept)
    elect_tile(out, deltas, weight, weight, FUNCTIONS[function], sign_of_majority(majority, zero_sum), scale)


@ties.from_stored
def _direct(
    out: Any, stored: Any, kept: Cut | None, majority: Any, *, weight: Any, function: Function, zero_sum: ZeroSum,
    scale: float,
) -> bool | None:  # fmt: skip
    from ..kernels.stored import elect

    return elect(out, stored, kept, weight, function, sign_of_majority(majority, zero_sum), scale)
