"""Functions of bidiagonal and tridiagonal matrices, to which dense ones are reduced by rotations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F64, F32Rows, F64Rows, kernel

_NOTHING = 1e-25  # smaller numbers are flushed to zero: subnormals are slow
_NEAR = 0.01  # relative accuracy of the lower bound


@kernel
def smallest(diagonal: F64, beside: F64, least: float, most: float, out: F64) -> None:
    """Lower bound of the smallest eigenvalue of a tridiagonal matrix, by bisection of Sturm sequences.

    Args:
        diagonal: (n,) float64.
        beside: (n,) float64, the off-diagonal; the last is not used.
        least: Lower bound of the smallest eigenvalue, above zero.
        most: Upper bound of it.
        out: (1,) float64, written: the improved lower bound.
    """
    low, high = np.float64(least), np.float64(most)
    while high - low > _NEAR * low:
        middle = (low + high) / 2
        if _is_positive(diagonal, beside, middle):
            low = middle
        else:
            high = middle
    out[0] = low


@kernel
def _is_positive(diagonal: Any, beside: Any, shift: Any) -> Any:
    """True if all eigenvalues are above the shift, that is, all pivots of L D L^T are positive."""
    pivot = diagonal[0] - shift
    for i in range(1, diagonal.size):
        if not pivot > 0:
            return False
        pivot = diagonal[i] - shift - beside[i - 1] * beside[i - 1] / pivot
    return pivot > 0


@kernel
def sum_of_inverses(
    diagonal: F64,
    beside: F64,
    shifts: F64,
    weights: F64,
    factors: F64Rows,
    pivots: F64Rows,
    rows: F64Rows,
    out: F64Rows,
) -> None:
    """Write sum_p w_p (T + c_p I)^-1 of a positive tridiagonal matrix T.

    With L D L^T of each shifted matrix, its inverse has (i, j) = -l_i (i + 1, j) for i < j and (i, i) = 1 / d_i -
    l_i (i, i + 1): sums of positive numbers on the diagonal, and rows that follow from those below them.

    Args:
        diagonal: (n,) float64.
        beside: (n,) float64, the off-diagonal; the last is not used.
        shifts: (p,) float64, none below zero.
        weights: (p,) float64.
        factors: (p, n) float64, overwritten.
        pivots: (p, n) float64, overwritten.
        rows: (p, n) float64, overwritten.
        out: (n, n) float64, written.
    """
    n = diagonal.size
    for p in range(shifts.size):
        _factored(diagonal, beside, shifts[p], weights[p], factors[p], pivots[p])
    for at in range(n):
        i = n - 1 - at
        sums = out[i]
        sums[i:] = 0.0
        for p in range(shifts.size):
            _add_row(rows[p], factors[p, i], pivots[p, i], i, sums)
    for i in range(n):
        for j in range(i):
            out[i, j] = out[j, i]


@kernel
def _factored(diagonal: Any, beside: Any, shift: Any, weight: Any, factors: Any, pivots: Any) -> None:
    """L and D of L D L^T: -l_i, and the weight over d_i."""
    last, pivot = diagonal.size - 1, diagonal[0] + shift
    for i in range(last):
        factors[i] = -beside[i] / pivot
        pivots[i] = weight / pivot
        pivot = diagonal[i + 1] + shift + factors[i] * beside[i]
    factors[last] = 0.0
    pivots[last] = weight / pivot


@kernel
def _add_row(row: Any, factor: Any, pivot: Any, i: int, sums: Any) -> None:
    right, out = row[i + 1 :], sums[i + 1 :]
    for j in range(right.size):
        entry = right[j] * factor
        entry = entry if abs(entry) > _NOTHING else 0.0
        right[j] = entry
        out[j] += entry
    row[i] = pivot + (factor * right[0] if right.size else 0.0)
    sums[i] += row[i]


@kernel
def times(diagonal: F64, beside: F64, right: F64Rows, out: F32Rows) -> None:
    """Write the product of an upper bidiagonal matrix and another.

    Args:
        diagonal: (n,) float64.
        beside: (n,) float64, the off-diagonal; the last is not used.
        right: (n, n) float64.
        out: (n, n) float32, written.
    """
    last = diagonal.size - 1
    for i in range(last):
        here, below, row = right[i], right[i + 1], out[i]
        d, e = diagonal[i], beside[i]
        for j in range(row.size):
            row[j] = np.float32(d * here[j] + e * below[j])
    d, here, row = diagonal[last], right[last], out[last]
    for j in range(row.size):
        row[j] = np.float32(d * here[j])
