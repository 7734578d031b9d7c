"""Fisher-weighted averaging of a tile."""

from __future__ import annotations

import numpy as np

from ..native import F32, F32Rows, kernel, scratch

_BLOCK = 1024


@kernel
def by_share(out: F32, stack: F32Rows, fisher: F32Rows, weight: F32, floor: float, floored: int) -> None:
    """Write sum_i w_i known_i stack_i / sum_i w_i known_i; where the denominator is zero, average by w alone.

    Args:
        out: (n,) float32.
        stack: (k, n) float32.
        fisher: (k, n) float32, Fisher information, at least 0; overwritten.
        weight: (k,) float32, at least 0, with a sum above 0.
        floor: Lower bound of the information.
        floored: Number of models, from the first on, that the bound applies to.
    """
    zero, least = np.float32(0), np.float32(floor)
    total, sum_of_weights = scratch(_BLOCK, np.float32), np.sum(weight)
    for begin in range(0, out.size, _BLOCK):
        # Two sweeps over a block in cache: the weighted information (k, block) and its sum, then the average.
        part = out[begin : begin + _BLOCK]
        total[:] = zero
        for model in range(stack.shape[0]):
            row, w = fisher[model, begin : begin + _BLOCK], weight[model]
            lowest = least if model < floored else zero
            for i in range(part.size):
                row[i] = w * max(row[i], lowest)
                total[i] += row[i]
        part[:] = zero
        for model in range(stack.shape[0]):
            row, values = fisher[model, begin : begin + _BLOCK], stack[model, begin : begin + _BLOCK]
            alone = weight[model] / sum_of_weights
            for i in range(part.size):
                share = row[i] / total[i] if total[i] > zero else alone
                part[i] += share * values[i]
