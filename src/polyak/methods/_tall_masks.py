"""TALL masks: the entries of a multi-task vector that a model needs. Shared by `tall_masks` and `consensus`."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace

from ._passes import Array, Cut, Sum, Top
from ._sign_election import ZeroSum, elect, sign_of_majority, votes
from ._sparsify import Granularity, survivors, trimmed

Of: TypeAlias = Literal["sum", "ties"]


def kept_by_ties(of: Of, density: tuple[float, ...], granularity: Granularity) -> Top | None:
    """Request the trim threshold, if task vectors are merged by TIES."""
    return survivors(density, "official", granularity) if of == "ties" else None


def majority_of_ties(of: Of, granularity: Granularity, zero_sum: ZeroSum) -> Sum | None:
    """Request the sum of all elected signs, if TIES resolves zero sums by it."""
    if of == "sum" or zero_sum != "majority":
        return None
    return Sum(_votes, scope=granularity, kernel=_votes_of_tile)


def _votes(deltas: Array, kept: Cut | None, weight: Array) -> Array:
    return votes(weight * trimmed(deltas, kept))


def multi_task(
    deltas: Array, kept: Cut | None, majority: Array | None, weight: Array, of: Of, zero_sum: ZeroSum
) -> Array:
    """The multi-task vector: the weighted sum, or the sum of the entries that agree with the elected sign."""
    xp = array_namespace(deltas)
    if of == "sum":
        return xp.sum(weight * deltas, axis=0)
    return elect(weight * trimmed(deltas, kept), weight, "sum", sign_of_majority(majority, zero_sum))


def needed(deltas: Array, merged: Array, weight: Array, tall_lambda: Array) -> Array:
    """The mask |w_i tau_i| > lambda_i |tau - w_i tau_i|, as booleans: (k, *shape)."""
    xp = array_namespace(deltas)
    own = weight * deltas
    return xp.abs(own) > tall_lambda * xp.abs(merged - own)


def _votes_of_tile(deltas: Any, kept: Cut | None, weight: Any) -> list[float]:
    from ..kernels.sign_election import sign_votes

    _trim(deltas, kept)
    return [sign_votes(deltas, weight)]


def _trim(deltas: Any, kept: Cut | None) -> None:
    from ..kernels.sparsify import trim

    if kept is not None:
        trim(deltas, kept.value, kept.last, kept.row, kept.start)


def multi_task_tile(
    out: Any, deltas: Any, kept: Cut | None, majority: Any, weight: Any, of: Of, zero_sum: ZeroSum
) -> None:
    """`multi_task` for a tile on the CPU; the deltas are left as they are."""
    from ..kernels.sign_election import SUM
    from ..kernels.sign_election import elect as elect_tile
    from ..kernels.weighted_sums import weighted_sum

    if of == "sum":
        weighted_sum(out, deltas, weight, 1.0)
        return
    stack = deltas if kept is None else deltas.copy()
    _trim(stack, kept)
    elect_tile(out, stack, weight, weight, SUM, sign_of_majority(majority, zero_sum), 1.0)
