"""Exact order statistics of magnitudes, without sorting.

A magnitude is handled as the bit pattern of its float32 without the sign: an unsigned integer in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import inlined, kernel, scratch

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_PART = 1024  # entries whose patterns and marks stay in the first-level cache


@inlined
def _magnitude(number: Any) -> Any:
    return np.uint32(np.float32(number).view(np.uint32) & _MAGNITUDE)


@kernel
def count_and_collect(row: Any, low: Any, high: Any, inside: Any, used: int) -> Any:
    """Count the magnitudes above `high` and append those in [low, high] to `inside`.

    Vector code marks what lies inside; of eight marks at a time, only those that are not all zero are walked.

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
    patterns, marks = scratch(_PART, np.uint32), scratch(_PART, np.uint8)
    for begin in range(0, row.size, _PART):
        part = row[begin : begin + _PART]
        over = np.uint32(0)
        for i in range(part.size):
            bits = _magnitude(part[i])
            patterns[i] = bits
            over += np.uint32(bits > high)
            marks[i] = np.uint8(np.uint32(bits - low) <= width)
        above += np.int64(over)
        marks[part.size :] = 0
        used = _append_marked(patterns, marks, inside, used)
    return above, used


@kernel
def count_and_collect_deltas(bits: Any, base: Any, shift: Any, low: Any, high: Any, inside: Any, used: int) -> Any:
    """`count_and_collect` of the differences of two stored rows, which never become a row of float32.

    Args:
        bits: (n,) uint16 or uint32: bfloat16 or float32 as stored.
        base: (n,) the same, to subtract.
        shift: uint32; what a stored number is shifted by to be a float32's pattern: 16 or 0.
        low: uint32 pattern.
        high: uint32 pattern.
        inside: uint32 patterns found so far; what does not fit is only counted.
        used: How many were found so far.

    Returns:
        As `count_and_collect`.
    """
    above, width = np.int64(0), np.uint32(high - low)
    patterns, marks = scratch(_PART, np.uint32), scratch(_PART, np.uint8)
    for begin in range(0, bits.size, _PART):
        part, ground = bits[begin : begin + _PART], base[begin : begin + _PART]
        over = np.uint32(0)
        for i in range(part.size):
            pattern = _delta_magnitude(part[i], ground[i], shift)
            patterns[i] = pattern
            over += np.uint32(pattern > high)
            marks[i] = np.uint8(np.uint32(pattern - low) <= width)
        above += np.int64(over)
        marks[part.size :] = 0
        used = _append_marked(patterns, marks, inside, used)
    return above, used


@kernel
def _append_marked(patterns: Any, marks: Any, inside: Any, used: int) -> int:
    eights = marks.view(np.uint64)
    for eight in range(eights.size):
        if eights[eight] != 0:
            for i in range(8 * eight, 8 * eight + 8):
                if marks[i] != 0:
                    if used < inside.size:
                        inside[used] = patterns[i]
                    used += 1
    return used


@inlined
def _delta_magnitude(bits: Any, base: Any, shift: Any) -> Any:
    number = np.uint32(np.uint32(bits) << shift).view(np.float32)
    return _magnitude(number - np.uint32(np.uint32(base) << shift).view(np.float32))


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
