"""Inner products of models, and sums of models with one coefficient per row or column."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F64, F32Planes, F32Rows, F64Planes, F64Rows, kernel, scratch
from ._lanes import total

_BLOCK = 1024
_LANES = 128
TOGETHER = 16 * 1024  # entries whose products are summed before they are added to the total


@kernel
def inner_products(stack: F32Rows, out: F64Rows) -> None:
    """Write sum_n stack_in stack_jn in float64, summed in lanes, an order that vectorises.

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
    """Add the inner products over the entries [start, stop), at most TOGETHER, to the upper triangle of `out`.

    Rows are taken two or three at a time, so that each entry is widened once for all products among them.
    """
    lanes, k = scratch(_LANES, np.float64), stack.shape[0]
    # Upper triangle in bands of three models: products inside the band, then the band with all later models.
    for a in range(0, k, 3):
        stop_of_few = min(a + 3, k)
        if stop_of_few - a == 3:
            _add_six(stack[a, start:stop], stack[a + 1, start:stop], stack[a + 2, start:stop], out[a : a + 3, a:])
        elif stop_of_few - a == 2:
            _add_three(stack[a, start:stop], stack[a + 1, start:stop], out[a : a + 2, a:])
        else:
            out[a, a] += _inner_product(stack[a, start:stop], stack[a, start:stop], lanes)
        for i in range(a, stop_of_few):
            for b in range(stop_of_few, k):
                out[i, b] += _inner_product(stack[i, start:stop], stack[b, start:stop], lanes)


@kernel
def _add_three(x: Any, y: Any, out: Any) -> None:
    xx, xy, yy = scratch(_LANES, np.float64), scratch(_LANES, np.float64), scratch(_LANES, np.float64)
    xx[:] = 0.0
    xy[:] = 0.0
    yy[:] = 0.0
    whole = x.size // _LANES * _LANES
    for at in range(0, whole, _LANES):
        left, right = x[at : at + _LANES], y[at : at + _LANES]
        for i in range(_LANES):
            a, b = np.float64(left[i]), np.float64(right[i])
            xx[i] += a * a
            xy[i] += a * b
            yy[i] += b * b
    out[0, 0] += _summed(x[whole:], x[whole:], xx)
    out[0, 1] += _summed(x[whole:], y[whole:], xy)
    out[1, 1] += _summed(y[whole:], y[whole:], yy)


@kernel
def _add_six(x: Any, y: Any, z: Any, out: Any) -> None:
    xx, xy, xz = scratch(_LANES, np.float64), scratch(_LANES, np.float64), scratch(_LANES, np.float64)
    yy, yz, zz = scratch(_LANES, np.float64), scratch(_LANES, np.float64), scratch(_LANES, np.float64)
    for i in range(_LANES):
        xx[i], xy[i], xz[i], yy[i], yz[i], zz[i] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    # One pass over x, y and z for all six products; the last entries, fewer than lanes, follow in `_summed`.
    whole = x.size // _LANES * _LANES
    for at in range(0, whole, _LANES):
        first, second, third = x[at : at + _LANES], y[at : at + _LANES], z[at : at + _LANES]
        for i in range(_LANES):
            a, b, c = np.float64(first[i]), np.float64(second[i]), np.float64(third[i])
            xx[i] += a * a
            xy[i] += a * b
            xz[i] += a * c
            yy[i] += b * b
            yz[i] += b * c
            zz[i] += c * c
    out[0, 0] += _summed(x[whole:], x[whole:], xx)
    out[0, 1] += _summed(x[whole:], y[whole:], xy)
    out[0, 2] += _summed(x[whole:], z[whole:], xz)
    out[1, 1] += _summed(y[whole:], y[whole:], yy)
    out[1, 2] += _summed(y[whole:], z[whole:], yz)
    out[2, 2] += _summed(z[whole:], z[whole:], zz)


@kernel
def inner_products_by_row(stack: F32Planes, out: F64Planes) -> None:
    """`inner_products` per row.

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
def squares(stack: F32Rows, out: F64) -> None:
    """Write the squared norm of each model, with the bits of the diagonal of `inner_products`.

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
    return _summed(x[whole:], y[whole:], lanes)


@kernel
def _summed(x: Any, y: Any, lanes: Any) -> Any:
    """Add the products of the last entries, fewer than there are lanes, and sum the lanes."""
    for i in range(x.size):
        lanes[i] += np.float64(x[i]) * np.float64(y[i])
    return total(lanes)


@kernel
def inner_products_by_column(stack: F32Planes, out: F64Planes) -> None:
    """Write inner products per column, in float64, summed in the order of the rows.

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
            sums, mirrored = out[a, b], out[b, a]
            for i in range(sums.size):
                sums[i] = mirrored[i]


@kernel
def mean_by_row(out: F32, stack: F32Rows, start: int, factor: F64, row: int) -> None:
    """Write the mean of the models, times a factor per row.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        start: Index in the tensor of the first entry.
        factor: (rows,) float64.
        row: Entries per row of the tensor.
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
def sum_by_row(out: F32, stack: F32Rows, start: int, factor: F64Rows, row: int) -> None:
    """Write the sum of two models, each times a factor per row.

    Args:
        out: (n,) float32, written.
        stack: (2, n) float32.
        start: Index in the tensor of the first entry.
        factor: (2, rows) float64.
        row: Entries per row of the tensor.
    """
    for r in range(start // row, (start + out.size + row - 1) // row):
        begin, end = max(r * row - start, 0), min((r + 1) * row - start, out.size)
        part, x, y = out[begin:end], stack[0, begin:end], stack[1, begin:end]
        left, right = np.float32(factor[0, r]), np.float32(factor[1, r])
        for i in range(part.size):
            part[i] = x[i] * left + y[i] * right


@kernel
def sum_by_column(out: F32, stack: F32Rows, start: int, factor: F32Rows) -> None:
    """Write the sum of two models, each times a factor per column.

    Args:
        out: (n,) float32, written.
        stack: (2, n) float32.
        start: Index in the tensor of the first entry.
        factor: (2, columns) float32.
    """
    columns = factor.shape[1]
    for r in range(start // columns, (start + out.size + columns - 1) // columns):
        begin, end = max(r * columns - start, 0), min((r + 1) * columns - start, out.size)
        part, x, y = out[begin:end], stack[0, begin:end], stack[1, begin:end]
        skipped = begin + start - r * columns
        left, right = factor[0, skipped:], factor[1, skipped:]
        for i in range(part.size):
            part[i] = x[i] * left[i] + y[i] * right[i]
