"""Sign election, shared by TIES, DARE-TIES and related methods."""

from __future__ import annotations

from typing import Literal, TypeAlias

from array_api_compat import array_namespace

from ._passes import Array

Function: TypeAlias = Literal["mean", "sum", "max"]
ZeroSum: TypeAlias = Literal["majority", "positive", "drop"]


def elect(weighted: Array, weight: Array, function: Function, tie: float, ballot: Array | None = None) -> Array:
    """Merge, for every entry, the models that agree with the sign of the sum.

    Args:
        weighted: w_i tau_i, (k, *shape).
        weight: w_i, (k, 1, ..., 1).
        function: `mean` (divided by the sum of the agreeing weights), `sum` or `max`.
        tie: The sign where the sum is zero; 0 for none.
        ballot: Stack whose sum decides the sign (default: `weighted`).
    """
    xp = array_namespace(weighted)
    total = xp.sum(weighted if ballot is None else ballot, axis=0)
    sign = xp.where(total == 0, xp.full_like(total, tie), xp.sign(total))
    agreeing = xp.where(weighted * sign > 0, weighted * sign, xp.zeros_like(weighted))
    if function == "max":
        return sign * xp.max(agreeing, axis=0)
    merged = sign * xp.sum(agreeing, axis=0)
    if function == "sum":
        return merged
    share = xp.sum(xp.where(agreeing > 0, weight + xp.zeros_like(weighted), xp.zeros_like(weighted)), axis=0)
    return merged / xp.where(share == 0, xp.ones_like(share), share)


def votes(weighted: Array) -> Array:
    """The elected sign of every entry, for `majority` to sum: (1, *shape)."""
    xp = array_namespace(weighted)
    return xp.sign(xp.sum(weighted, axis=0))[None]


def sign_of_majority(majority: Array | None, zero_sum: ZeroSum) -> float:
    """The sign for entries whose sum is zero: 1, -1 or 0."""
    if majority is None:
        return 1.0 if zero_sum == "positive" else 0.0
    votes = float(majority[0])
    return float((votes > 0) - (votes < 0))
