"""Weighted sums and order statistics over the models of a tile.

Rows are taken as views before the inner loops: an index that the compiler cannot prove non-negative prevents
vectorisation, which costs a factor of ten.
"""

from __future__ import annotations

import numpy as np

from ..native import F32, F32Rows, U32Rows, kernel
from .sparsify import drop_all

_BLOCK = 1024  # entries of `out` that stay in the first-level cache while the models are added


@kernel
def weighted_sum(out: F32, stack: F32Rows, weight: F32, scale: float | np.float32) -> None:
    """Write scale * sum_i weight_i stack_i, summed in the order of the models.

    Args:
        out: (n,) float32.
        stack: (k, n) float32.
        weight: (k,) float32.
        scale: Multiplies the sum.
    """
    factor = np.float32(scale)
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        row, w = stack[0, begin : begin + _BLOCK], weight[0]
        for i in range(part.size):
            part[i] = w * row[i]
        for model in range(1, stack.shape[0] - 1, 2):  # two at a time halve the traffic of `out`
            row, w = stack[model, begin : begin + _BLOCK], weight[model]
            other, v = stack[model + 1, begin : begin + _BLOCK], weight[model + 1]
            for i in range(part.size):
                part[i] = (part[i] + w * row[i]) + v * other[i]
        if stack.shape[0] % 2 == 0:
            row, w = stack[stack.shape[0] - 1, begin : begin + _BLOCK], weight[stack.shape[0] - 1]
            for i in range(part.size):
                part[i] += w * row[i]
        for i in range(part.size):
            part[i] *= factor


@kernel
def combine(out: F32, stack: F32Rows, start: int, weight: F32, scale: float) -> None:
    """`weighted_sum`: the kernel of a `KernelCall`."""
    weighted_sum(out, stack, weight, scale)


@kernel
def drop_and_combine(
    out: F32, stack: F32Rows, start: int, keys: U32Rows, density: F32, factor: F32, weight: F32, scale: float
) -> None:
    """`drop_all`, then `weighted_sum`: the kernel of a `KernelCall`."""
    drop_all(stack, start, keys, density, factor)
    weighted_sum(out, stack, weight, scale)


@kernel
def add(out: F32, base: F32) -> None:
    """Add the base to `out`, in place; both (n,) float32."""
    for i in range(base.size):
        out[i] += base[i]


@kernel
def order(stack: F32Rows) -> None:
    """Sort the models per entry, in place, ascending.

    An odd-even transposition network: compare-exchanges of whole rows, which vectorise.

    Args:
        stack: (k, n) float32, changed.
    """
    k = stack.shape[0]
    for begin in range(0, stack.shape[1], _BLOCK):
        for turn in range(k):
            for model in range(turn % 2, k - 1, 2):
                a, b = stack[model, begin : begin + _BLOCK], stack[model + 1, begin : begin + _BLOCK]
                for i in range(a.size):
                    low, high = min(a[i], b[i]), max(a[i], b[i])
                    a[i], b[i] = low, high


@kernel
def middle(out: F32, stack: F32Rows) -> None:
    """Median of sorted models per entry: the middle one, or the mean of the middle two.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32, ordered.
    """
    k, half = stack.shape[0], np.float32(0.5)
    a, b = stack[(k - 1) // 2], stack[k // 2]
    for i in range(out.size):
        out[i] = a[i] * half + b[i] * half
