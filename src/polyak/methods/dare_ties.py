"""DARE with TIES."""

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
    """Drop entries of each task vector at random, rescale the rest, then trim, elect and average as TIES does.

    dropped_i = m_i tau_i, where m_i is 1 with probability d_i, independently for every entry;
    sparse_i = dropped_i / d_i where |dropped_i| is among the largest, else 0;
    s = sign(sum_i w_i sparse_i);
    tau = scale * sum_i w_i sparse_i [w_i sparse_i s > 0] / sum_i w_i [w_i sparse_i s > 0].

    Departures:
        The authors' code trims to TIES' default of 0.2 after the drop and resolves zero sums by majority; here, as in
        mergekit, nothing is trimmed, and zero sums are dropped. mergekit restores L1 norms and sums the agreeing
        entries.

    Args:
        deltas: (k, *shape).
        chance: A uniform random number per model and entry; the entry is kept if it is below the density.
        norms: L1 norms of the task vectors before and after the drop.
        kept: Entries that remain after the trim.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model in election and merge.
        density: Probability that an entry is kept: one minus the paper's drop rate p.
        trim: Fraction of all entries, the dropped ones included, that TIES keeps afterwards. The default of 1 does not
            trim (mergekit); the authors' code trims to TIES' own 0.2.
        rescale: Rescaling after the drop: `inverse_keep` divides by the density (paper), `l1` restores each tensor's L1
            norm (mergekit), `none`. The norms are those of the drop alone, before the trim.
        topk: See `ties`.
        granularity: Scope of the trim: each `tensor`, or the whole `model`.
        function: Merge agreeing entries by `mean`, `sum` (mergekit), or `max`, the largest magnitude.
        zero_sum: Sign of entries whose sum is exactly zero: the `majority` sign of all entries (authors' code; none if
            balanced), `positive` (mergekit), or `drop` to keep the base's value.
        scale: Factor of the result.
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
