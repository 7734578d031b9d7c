"""Inner products of models, and sums of models with a coefficient for each row or column."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import kernel, scratch

_BLOCK = 1024
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
def inner_products_by_row(stack: Any, out: Any) -> None:
    """`inner_products` of each row.

    Args:
        stack: (k, rows, n) float32.
        out: (rows, k, k) float64.
    """
    lanes = scratch(_LANES, np.float64)
    out[:] = 0.0
    for row in range(stack.shape[1]):
        products = out[row]
        for begin in range(0, stack.shape[2], TOGETHER):
            for a in range(stack.shape[0]):
                for b in range(a, stack.shape[0]):
                    products[a, b] += _inner_product(
                        stack[a, row, begin : begin + TOGETHER], stack[b, row, begin : begin + TOGETHER], lanes
                    )
        mirror(products)


@kernel
def squares(stack: Any, out: Any) -> None:
    """Write each model's product with itself, as `inner_products` has it.

    Args:
        stack: (k, n) float32.
        out: (k,) float64.
    """
    lanes = scratch(_LANES, np.float64)
    out[:] = 0.0
    for model in range(stack.shape[0]):
        for begin in range(0, stack.shape[1], TOGETHER):
            part = stack[model, begin : begin + TOGETHER]
            out[model] += _inner_product(part, part, lanes)


@kernel
def mirror(products: Any) -> None:
    """Copy the upper triangle to the lower one."""
    for a in range(products.shape[0]):
        for b in range(a):
            products[a, b] = products[b, a]


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


@kernel
def inner_products_by_column(stack: Any, out: Any) -> None:
    """Write the products of entries that differ in nothing but their row, in float64, summed in the order of the rows.

    Args:
        stack: (k, rows, columns) float32.
        out: (k, k, columns) float64.
    """
    k = stack.shape[0]
    out[:] = 0.0
    for row in range(stack.shape[1]):
        for a in range(k):
            for b in range(a, k):
                left, right, sums = stack[a, row], stack[b, row], out[a, b]
                for i in range(sums.size):
                    sums[i] += np.float64(left[i]) * np.float64(right[i])
    for a in range(k):
        for b in range(a):
            sums, known = out[a, b], out[b, a]
            for i in range(sums.size):
                sums[i] = known[i]


@kernel
def mean_by_row(out: Any, stack: Any, start: int, factor: Any, row: int) -> None:
    """Write the mean of the models, times a factor for each row.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        start: Index in the tensor of the first entry.
        factor: (rows,) float64.
        row: Entries in a row of the tensor.
    """
    k = stack.shape[0]
    share = np.float32(1 / k)
    for r in range(start // row, (start + out.size + row - 1) // row):
        times, last = np.float32(factor[r]), min((r + 1) * row - start, out.size)
        for begin in range(max(r * row - start, 0), last, _BLOCK):
            end = min(begin + _BLOCK, last)
            part, first = out[begin:end], stack[0, begin:end]
            for i in range(part.size):
                part[i] = first[i]
            for model in range(1, k):
                other = stack[model, begin:end]
                for i in range(part.size):
                    part[i] += other[i]
            for i in range(part.size):
                part[i] = part[i] * share * times


@kernel
def sum_by_row(out: Any, stack: Any, start: int, factor: Any, row: int) -> None:
    """Write the sum of two models, each times a factor for each row; arguments as for `mean_by_row`.

    Args:
        out: (n,) float32, written.
        stack: (2, n) float32.
        start: Index in the tensor of the first entry.
        factor: (2, rows) float64.
        row: Entries in a row of the tensor.
    """
    for r in range(start // row, (start + out.size + row - 1) // row):
        begin, end = max(r * row - start, 0), min((r + 1) * row - start, out.size)
        part, one, other = out[begin:end], stack[0, begin:end], stack[1, begin:end]
        left, right = np.float32(factor[0, r]), np.float32(factor[1, r])
        for i in range(part.size):
            part[i] = one[i] * left + other[i] * right


@kernel
def sum_by_column(out: Any, stack: Any, start: int, factor: Any) -> None:
    """Write the sum of two models, each times a factor for each column.

    Args:
        out: (n,) float32, written.
        stack: (2, n) float32.
        start: Index in the tensor of the first entry.
        factor: (2, columns) float32.
    """
    columns = factor.shape[1]
    for r in range(start // columns, (start + out.size + columns - 1) // columns):
        begin, end = max(r * columns - start, 0), min((r + 1) * columns - start, out.size)
        part, one, other = out[begin:end], stack[0, begin:end], stack[1, begin:end]
        skipped = begin + start - r * columns
        left, right = factor[0, skipped:], factor[1, skipped:]
        for i in range(part.size):
            part[i] = one[i] * left[i] + other[i] * right[i]
