"""DARE with TIES: drop deltas at random, rescale the rest, elect a sign, merge what has it."""

from __future__ import annotations

from typing import Annotated, Any

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, Uniform, method
from ._passes import Cut, Sum, Top
from ._sign_election import Function, ZeroSum, elect, sign_of_majority, votes
from ._sparsify import Granularity, Rescale, TopK, dropped, norms_when_dropped, rescaling, survivors, trimmed


def _survivors(trim: tuple[float, ...], topk: TopK, granularity: Granularity) -> Top | None:
    return survivors(trim, topk, granularity, of=dropped)


def _majority(granularity: Granularity, zero_sum: ZeroSum) -> Sum | None:
    return Sum(_votes, scope=granularity, kernel=_votes_of_tile) if zero_sum == "majority" else None


def _votes(
    deltas: Array, chance: Array, norms: Array | None, kept: Cut | None, weight: Array, density: Array, rescale: Rescale
) -> Array:
    return votes(weight * _sparse(deltas, chance, norms, kept, density, rescale))


@method(
    "dare_ties",
    source="Yu et al., 2024. Language Models are Super Mario. arXiv:2311.03099",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def dare_ties(
    deltas: Deltas,
    chance: Uniform,
    norms: Annotated[Array | None, FirstPass(norms_when_dropped)],
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    majority: Annotated[Array | None, FirstPass(_majority)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.5, In(0, 1, above=True))],
    trim: Annotated[Array, PerModel(1.0, In(0, 1))],
    rescale: Rescale = "inverse_keep",
    topk: TopK = "official",
    granularity: Granularity = "tensor",
    function: Function = "mean",
    zero_sum: ZeroSum = "drop",
    scale: float = 1.0,
) -> Delta:
    """Keep each entry of each delta with a probability and rescale it, then trim, elect and merge as TIES does.

    dropped_i = m_i tau_i, where m_i is 1 with probability d_i, independently for every entry;
    sparse_i = dropped_i / d_i where |dropped_i| is among the largest, else 0;
    s = sign(sum_i w_i sparse_i);
    tau = scale * sum_i w_i sparse_i [w_i sparse_i s > 0] / sum_i w_i [w_i sparse_i s > 0].

    Departures:
        The authors' code trims to TIES' own 0.2 after the drop and breaks zero sums by majority; here, as in mergekit,
        nothing is trimmed, and zero sums are dropped. mergekit restores L1 norms and adds up.

    Args:
        deltas: (k, *shape).
        chance: A number in [0, 1) for each model and entry; an entry is kept where it is below the density.
        norms: L1 norms of the deltas before and after the drop.
        kept: Which entries survive the trim.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model in election and merge.
        density: Probability that an entry is kept: one minus the paper's drop rate p.
        trim: Share of all entries, the dropped ones included, that TIES keeps afterwards. The default of 1 does
            not trim (mergekit); the authors' code trims to TIES' own 0.2.
        rescale: What keeps the size: `inverse_keep` divides by the density (paper), `l1` restores each tensor's
            L1 norm (mergekit), `none`. The norms are those of the drop alone, before the trim.
        topk: See `ties`.
        granularity: Over what the entries compete in the trim: each `tensor`, or the whole `model`.
        function: How the agreeing entries are merged: `mean`, `sum` (mergekit), or the `max` by magnitude.
        zero_sum: The sign where the sum is exactly zero: that of the `majority` of entries (authors' code; none
            if they balance), `positive` (mergekit), or `drop` for none.
        scale: What the result is multiplied by.
    """
    weighted = weight * _sparse(deltas, chance, norms, kept, density, rescale)
    return scale * elect(weighted, weight, function, sign_of_majority(majority, zero_sum))


def _sparse(
    deltas: Array, chance: Array, norms: Array | None, kept: Cut | None, density: Array, rescale: Rescale
) -> Array:
    return trimmed(dropped(deltas, chance, density), kept) * rescaling(rescale, density, norms)


def _votes_of_tile(
    deltas: Any, chance: Any, norms: Any, kept: Cut | None, weight: Any, density: Any, rescale: Rescale
) -> list[float]:
    from ..kernels.sign_election import sign_votes

    _sparsify_tile(deltas, chance, norms, kept, density, rescale)
    return [sign_votes(deltas, weight)]


def _sparsify_tile(deltas: Any, chance: Any, norms: Any, kept: Cut | None, density: Any, rescale: Rescale) -> None:
    import numpy as np

    from ..kernels.sparsify import drop, trim

    factor = rescaling(rescale, density, norms)
    if kept is None:
        drop(deltas, chance, density, factor)
    else:  # the cut is of magnitudes that are not rescaled yet
        drop(deltas, chance, density, np.ones_like(density))
        trim(deltas, kept.value, kept.last, kept.row, kept.start)
        deltas *= factor[:, None]


@dare_ties.kernel
def _kernel(
    out: Any,
    deltas: Any,
    chance: Any,
    norms: Any,
    kept: Cut | None,
    majority: Any,
    weight: Any,
    density: Any,
    rescale: Rescale,
    function: Function,
    zero_sum: ZeroSum,
    scale: float,
) -> None:
    from ..kernels.sign_election import FUNCTIONS
    from ..kernels.sign_election import elect as elect_tile

    _sparsify_tile(deltas, chance, norms, kept, density, rescale)
    elect_tile(out, deltas, weight, weight, FUNCTIONS[function], sign_of_majority(majority, zero_sum), scale)
