"""Exact order statistics of magnitudes, without sorting.

A magnitude is handled as the bit pattern of its float32 without the sign: an unsigned integer in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import inlined, kernel

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_CHUNK = 64


@inlined
def _magnitude(number: Any) -> Any:
    return np.uint32(np.float32(number).view(np.uint32) & _MAGNITUDE)


@kernel
def count_and_collect(row: Any, low: Any, high: Any, inside: Any, used: int) -> Any:
    """Count the magnitudes above `high` and append those in [low, high] to `inside`.

    Few entries lie inside, so chunks are tested by vector code and only those that hold one are walked.

    Args:
        row: (n,) float32.
        low: uint32 pattern.
        high: uint32 pattern.
        inside: uint32 patterns found so far; what does not fit is only counted.
        used: How many were found so far.

    Returns:
        How many lie above, and how many were found inside in all, those that did not fit included.
    """
    above, width = np.int64(0), np.uint32(high - low)
    for begin in range(0, row.size, _CHUNK):
        part = row[begin : begin + _CHUNK]
        over, within = np.uint32(0), np.uint32(0)
        for i in range(part.size):
            bits = _magnitude(part[i])
            over += np.uint32(bits > high)
            within += np.uint32(np.uint32(bits - low) <= width)
        above += np.int64(over)
        if within > 0:
            for i in range(part.size):
                bits = _magnitude(part[i])
                if np.uint32(bits - low) <= width:
                    if used < inside.size:
                        inside[used] = bits
                    used += 1
    return above, used


@kernel
def put_into_bins(row: Any, low: Any, high: Any, shift: Any, bins: Any, ends: Any) -> None:
    """Count the magnitudes in [low, high] by their leading bits, and keep the ends of each bin.

    Args:
        row: (n,) float32.
        low: uint32 pattern.
        high: uint32 pattern.
        shift: uint32; the bin of a pattern is (pattern - low) >> shift.
        bins: int64, added to.
        ends: (bins, 2) uint32, the smallest and the largest pattern of each bin so far; widened.
    """
    width = np.uint32(high - low)
    for i in range(row.size):
        bits = _magnitude(row[i])
        beyond = np.uint32(bits - low)
        if beyond <= width:
            bin = np.uint32(beyond >> shift)
            bins[bin] += 1
            ends[bin, 0] = min(ends[bin, 0], bits)
            ends[bin, 1] = max(ends[bin, 1], bits)


@kernel
def count_equal(row: Any, value: Any) -> Any:
    """How many magnitudes equal the uint32 pattern `value`."""
    found = np.int64(0)
    for i in range(row.size):
        found += np.int64(_magnitude(row[i]) == value)
    return found


@kernel
def position_of_equal(row: Any, value: Any, nth: Any) -> Any:
    """Index of the `nth` (from 1) magnitude that equals the uint32 pattern `value`; -1 if there are fewer."""
    for i in range(row.size):
        if _magnitude(row[i]) == value:
            nth -= 1
            if nth == 0:
                return i
    return -1


@kernel
def last_kept(rows: Any, value: Any, count: int, first: int, out_last: Any) -> None:
    """For each row, the index of the last of the entries equal to its `count`-th largest magnitude that survive.

    Args:
        rows: (r, n) float32; 0 < count <= n.
        value: (r,) float32, the `count`-th largest magnitude of each row.
        count: How many survive in each row: those above `value`, and of its equals the first ones.
        first: Index in the tensor of the first entry.
        out_last: (r,) int64, written: indices in the tensor.
    """
    for r in range(rows.shape[0]):
        row, pattern = rows[r], _magnitude(value[r])
        above = np.uint32(0)
        for i in range(row.size):
            above = np.uint32(above + np.uint32(_magnitude(row[i]) > pattern))
        out_last[r] = first + r * row.size + position_of_equal(row, pattern, count - np.int64(above))
