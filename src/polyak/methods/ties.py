"""TIES: trim, elect a sign, merge."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, KernelCall, Law, PerModel, method
from ._passes import Cut, Sum, Top
from ._sign_election import Function, ZeroSum, elect, sign_of_majority, votes
from ._sparsify import Granularity, TopK, before_and_after, norm_kept, survivors, trimmed

Rescale: TypeAlias = Literal["none", "l1"]


def _survivors(density: tuple[float, ...], topk: TopK, granularity: Granularity) -> Top | None:
    return survivors(density, topk, granularity)


def _norms(rescale: Rescale) -> Sum | None:
    return Sum(_before_and_after, kernel=_norms_of_tile) if rescale == "l1" else None


def _before_and_after(deltas: Array, kept: Cut | None) -> Array:
    return before_and_after(deltas, trimmed(deltas, kept))


def _majority(granularity: Granularity, zero_sum: ZeroSum) -> Sum | None:
    return Sum(_votes, scope=granularity, kernel=_votes_of_tile) if zero_sum == "majority" else None


def _votes(deltas: Array, kept: Cut | None, norms: Array | None, weight: Array) -> Array:
    return votes(weight * _sparse(deltas, kept, norms, weight))


@method(
    "ties",
    source="Yadav et al., 2023. TIES-Merging. arXiv:2306.01708",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.HOMOGENEOUS, Law.ELEMENTWISE},
)
def ties(
    deltas: Deltas,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    norms: Annotated[Array | None, FirstPass(_norms)],
    majority: Annotated[Array | None, FirstPass(_majority)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.2, In(0, 1))],
    topk: TopK = "official",
    granularity: Granularity = "tensor",
    rescale: Rescale = "none",
    function: Function = "mean",
    zero_sum: ZeroSum = "drop",
    scale: float = 1.0,
) -> Delta:
    """Trim each task vector to its top-k entries, elect a sign per entry, average the entries that agree.

    trimmed_i = tau_i where |tau_i| reaches the density-th quantile, else 0;
    s = sign(sum_i w_i trimmed_i);
    tau = scale * sum_i w_i trimmed_i [w_i trimmed_i s > 0] / sum_i w_i [w_i trimmed_i s > 0].

    Departures:
        The trim is per tensor by default, as in mergekit and PEFT; in the paper and the authors' code it is over the
        whole model (`granularity: model`). Entries that sum to zero are dropped by default; in the authors' code they
        get the majority sign (`zero_sum: majority`), negative if balanced, where here none is used. The authors' code
        keeps k + 1 entries and all ties, the paper k (`topk: exact`).

    Args:
        deltas: (k, *shape).
        kept: Entries that remain after the trim.
        norms: L1 norms of the task vectors before and after the trim.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model in election and merge; the paper has 1.
        density: Fraction of entries that each model keeps; the paper has 0.2.
        topk: `official` keeps k + 1 entries and all ties, as the authors' code; `exact` keeps exactly max(1, k), as the
            paper, ties broken by the lowest index.
        granularity: Scope of the trim: each `tensor`, or the whole `model` (paper and authors' code).
        rescale: `l1` restores each tensor's L1 norm after the trim (mergekit, on request); `none`.
        function: Merge agreeing entries by `mean`, `sum`, or `max`, the largest magnitude.
        zero_sum: Sign of entries whose sum is exactly zero: `drop` keeps the base's value; `majority` uses the majority
            sign of all entries (authors' code, which takes negative if balanced; here none), at the cost of one more
            pass over all inputs; `positive` uses the positive sign (mergekit).
        scale: The paper's lambda.
    """
    weighted = weight * _sparse(deltas, kept, norms, weight)
    return scale * elect(weighted, weight, function, sign_of_majority(majority, zero_sum))


def _sparse(deltas: Array, kept: Cut | None, norms: Array | None, weight: Array) -> Array:
    sparse = trimmed(deltas, kept)
    return sparse if norms is None else sparse * norm_kept(norms, weight)


def _norms_of_tile(deltas: Any, kept: Cut | None) -> Any:
    from ..kernels.sparsify import before_and_after

    return before_and_after(deltas, lambda: _trim_tile(deltas, kept))


def _votes_of_tile(deltas: Any, kept: Cut | None, norms: Any, weight: Any) -> list[float]:
    from ..kernels.sign_election import sign_votes

    _sparsify_tile(deltas, kept, norms, weight)
    return [sign_votes(deltas, weight)]


def _sparsify_tile(deltas: Any, kept: Cut | None, norms: Any, weight: Any) -> None:
    _trim_tile(deltas, kept)
    if norms is not None:
        deltas *= norm_kept(norms, weight)[:, None]


def _trim_tile(deltas: Any, kept: Cut | None) -> None:
    from ..kernels.sparsify import trim

    if kept is not None:
        trim(deltas, kept.value, kept.last, kept.row, kept.start)


@ties.kernel
def _kernel(
    kept: Cut | None, norms: Any, majority: Any, weight: Any, function: Function, zero_sum: ZeroSum, scale: float
) -> KernelCall:
    import numpy as np

    from ..kernels.sign_election import FUNCTIONS, trim_and_elect

    cut = kept or Cut(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64), 1)
    factor = np.ones_like(weight) if norms is None else norm_kept(norms, weight)
    tie = float(sign_of_majority(majority, zero_sum))
    trimming = (kept is not None, cut.value, cut.last, cut.row, norms is not None, factor)
    return KernelCall(trim_and_elect, (*trimming, weight, FUNCTIONS[function], tie, float(scale)))
