"""Sign election (TIES): elect a sign per entry and merge the models that agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F32Rows, I64Rows, kernel, scratch
from .sparsify import trim_from

_BLOCK = 1024
MEAN, SUM, MAX = 0, 1, 2
FUNCTIONS = {"mean": MEAN, "sum": SUM, "max": MAX}


@kernel
def elect(out: F32, stack: F32Rows, weight: F32, vote: F32, function: int, tie: float, scale: float) -> None:
    """Elect the sign of the weighted vote; average or sum the entries that agree, or take the largest.

    Two sweeps over a block in cache: the vote per entry, then the entries that agree with its sign.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        weight: (k,) float32, in the merge.
        vote: (k,) float32, weight in the election: the same or of the same sign.
        function: MEAN, SUM or MAX.
        tie: The sign where the sum is zero: 1, -1, or 0 for none.
        scale: Multiplies the result.
    """
    sign, share = scratch(_BLOCK, np.float32), scratch(_BLOCK, np.float32)
    zero, one = np.float32(0), np.float32(1)
    tie_sign, factor = np.float32(tie), np.float32(scale)
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        part[:] = zero
        for model in range(stack.shape[0]):
            row, v = stack[model, begin : begin + _BLOCK], vote[model]
            for i in range(part.size):
                part[i] += v * row[i]
        for i in range(part.size):
            sign[i] = one if part[i] > zero else (-one if part[i] < zero else tie_sign)
            part[i] = zero
            share[i] = zero
        for model in range(stack.shape[0]):
            row, w = stack[model, begin : begin + _BLOCK], weight[model]
            for i in range(part.size):
                entry = w * row[i] * sign[i]
                agrees = entry > zero
                part[i] = max(part[i], entry) if function == MAX else part[i] + (entry if agrees else zero)
                share[i] += w if agrees else zero
        for i in range(part.size):
            divisor = share[i] if function == MEAN and share[i] != zero else one
            part[i] = part[i] * sign[i] / divisor * factor


@kernel
def unify(out: F32, stack: F32Rows, scale: float) -> None:
    """`elect` the largest by an unweighted vote; ties are negative (EMR).

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        scale: Multiplies the result.
    """
    sign = scratch(_BLOCK, np.float32)
    for begin in range(0, out.size, _BLOCK):
        unify_part(out[begin : begin + _BLOCK], stack, begin, sign, np.float32(scale))


@kernel
def unify_part(part: Any, stack: Any, begin: int, sign: Any, factor: Any) -> None:
    """`unify` for the entries from `begin` on; `sign` is overwritten."""
    zero, one = np.float32(0), np.float32(1)
    part[:] = zero
    for model in range(stack.shape[0]):
        row = stack[model, begin : begin + part.size]
        for i in range(part.size):
            part[i] += row[i]
    for i in range(part.size):
        sign[i] = one if part[i] > zero else -one
        part[i] = zero
    for model in range(stack.shape[0]):
        row = stack[model, begin : begin + part.size]
        for i in range(part.size):
            part[i] = max(part[i], row[i] * sign[i])
    for i in range(part.size):
        part[i] = part[i] * sign[i] * factor


@kernel
def trim_and_elect(
    out: F32,
    stack: F32Rows,
    start: int,
    trims: bool,
    value: F32Rows,
    last: I64Rows,
    row: int,
    rescales: bool,
    factor: F32,
    weight: F32,
    function: int,
    tie: float,
    scale: float,
) -> None:
    """`trim_from` if `trims`, times `factor` (k,) if `rescales`, then `elect`: the kernel of a `KernelCall`."""
    if trims:
        trim_from(stack, start, value, last, row)
    if rescales:
        for model in range(stack.shape[0]):
            for i in range(stack.shape[1]):
                stack[model, i] *= factor[model]
    elect(out, stack, weight, weight, function, tie, scale)


@kernel
def sign_votes(stack: F32Rows, weight: F32) -> float:
    """Sum over entries of the sign of the weighted sum over models."""
    votes = np.int64(0)
    total = scratch(_BLOCK, np.float32)
    for begin in range(0, stack.shape[1], _BLOCK):
        part = total[: min(_BLOCK, stack.shape[1] - begin)]
        part[:] = np.float32(0)
        for model in range(stack.shape[0]):
            row, w = stack[model, begin : begin + _BLOCK], weight[model]
            for i in range(part.size):
                part[i] += w * row[i]
        for i in range(part.size):
            votes += np.int64(part[i] > np.float32(0)) - np.int64(part[i] < np.float32(0))
    return float(votes)


@kernel
def own_part(out: F32, stack: F32Rows, scale: float) -> None:
    """Write the entries of the first model that have the sign of the sum over the models; zero elsewhere.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        scale: Multiplies the result.
    """
    factor, zero = np.float32(scale), np.float32(0)
    for i in range(out.size):
        own, total = stack[0, i], zero
        for model in range(stack.shape[0]):
            total += stack[model, i]
        agrees = (own > zero and total > zero) or (own < zero and total < zero)
        out[i] = factor * own if agrees else zero
