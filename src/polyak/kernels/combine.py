"""Sums over the models of a tile.

Rows are taken as views before the inner loops: an index that the compiler cannot prove positive costs the
vector code, tenfold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import kernel, scratch

_BLOCK = 1024  # entries that stay in the first-level cache while every model is added to them


@kernel
def weighted_sum(out: Any, stack: Any, weight: Any, scale: Any) -> None:
    """Write scale * sum_i weight_i stack_i, summed in the order of the models.

    Args:
        out: (n,) float32.
        stack: (k, n) float32.
        weight: (k,) float32.
        scale: A number.
    """
    factor = np.float32(scale)
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        row, w = stack[0, begin : begin + _BLOCK], weight[0]
        for i in range(part.size):
            part[i] = w * row[i]
        for model in range(1, stack.shape[0]):
            row, w = stack[model, begin : begin + _BLOCK], weight[model]
            for i in range(part.size):
                part[i] += w * row[i]
        for i in range(part.size):
            part[i] *= factor


@kernel
def combine(out: Any, stack: Any, start: int, weight: Any, scale: Any) -> None:
    """`weighted_sum` as the kernel of a `Loop`."""
    weighted_sum(out, stack, weight, scale)


@kernel
def add(out: Any, base: Any) -> None:
    """Add the base to `out`, in place; both (n,) float32."""
    for i in range(base.size):
        out[i] += base[i]


@kernel
def scale_rows(out: Any, factor: Any, row: int, start: int) -> None:
    """Multiply each row's entries by that row's factor, in place.

    Args:
        out: (n,) float32, changed.
        factor: (rows,) float64, of the rows that the entries lie in.
        row: Entries in a row of the tensor.
        start: Index in the tensor of the first entry.
    """
    for r in range(factor.size):
        begin = (start // row + r) * row - start
        part, times = out[max(begin, 0) : min(begin + row, out.size)], np.float32(factor[r])
        for i in range(part.size):
            part[i] *= times


@kernel
def order(stack: Any) -> None:
    """Sort the models at every entry, in place, ascending.

    Neighbours are exchanged, odd and even in turn: a network, so vector code.

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
def middle(out: Any, stack: Any) -> None:
    """The middle of ordered models at every entry, or the mean of the middle two.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32, ordered.
    """
    k, half = stack.shape[0], np.float32(0.5)
    a, b = stack[(k - 1) // 2], stack[k // 2]
    for i in range(out.size):
        out[i] = a[i] * half + b[i] * half


_LANES = 128
TOGETHER = 16 * 1024  # entries whose products are added to the total at once


@kernel
def inner_products(stack: Any, out: Any) -> None:
    """Write sum_n stack_in stack_jn in float64, summed in lanes: an order that vector code can keep.

    Args:
        stack: (k, n) float32.
        out: (k, k) float64.
    """
    out[:] = 0.0
    for begin in range(0, stack.shape[1], TOGETHER):
        add_products(stack, begin, min(begin + TOGETHER, stack.shape[1]), out)
    mirror(out)


@kernel
def add_products(stack: Any, start: int, stop: int, out: Any) -> None:
    """Add the inner products over the entries [start, stop), at most TOGETHER, to the upper triangle of `out`."""
    lanes = scratch(_LANES, np.float64)
    for a in range(stack.shape[0]):
        for b in range(a, stack.shape[0]):
            out[a, b] += _inner_product(stack[a, start:stop], stack[b, start:stop], lanes)


@kernel
def mirror(out: Any) -> None:
    """Copy the upper triangle to the lower one."""
    for a in range(out.shape[0]):
        for b in range(a):
            out[a, b] = out[b, a]


@kernel
def _inner_product(x: Any, y: Any, lanes: Any) -> Any:
    lanes[:] = 0.0
    whole = x.size // _LANES * _LANES
    for at in range(0, whole, _LANES):
        left, right = x[at : at + _LANES], y[at : at + _LANES]
        for i in range(_LANES):
            lanes[i] += np.float64(left[i]) * np.float64(right[i])
    for i in range(x.size - whole):
        lanes[i] += np.float64(x[whole + i]) * np.float64(y[whole + i])
    half = _LANES // 2
    while half >= 1:
        for i in range(half):
            lanes[i] += lanes[half + i]
        half //= 2
    return lanes[0]
