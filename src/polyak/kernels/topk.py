"""Exact top-k thresholds of magnitudes, without sorting.

A magnitude is represented by the bits of its float32 without the sign: an unsigned integer in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, I64, U16, U32, U32Rows, inlined, kernel, scratch

PART = 1024  # entries per part; patterns and marks stay in the first-level cache
_SPACE = 2 * PART + 1  # the patterns of a part, then the marked ones
MAGNITUDE = np.uint32(0x7FFFFFFF)
_DENSE = 32  # with more than one mark in 32, a plain walk is faster than a search for the marks


@inlined
def magnitude_of(number: Any) -> Any:
    """The pattern of a float32 without its sign."""
    return np.uint32(np.float32(number).view(np.uint32) & MAGNITUDE)


@inlined
def float_of(bits: Any) -> Any:
    """The float32 that has a pattern."""
    return np.uint32(bits).view(np.float32)


@kernel
def count_and_collect(row: F32, low: np.uint32, high: np.uint32, inside: U32, tally: I64) -> None:
    """Count the magnitudes above `high` and append those in [low, high] to `inside`.

    Args:
        row: (n,) float32.
        low: uint32 pattern.
        high: uint32 pattern.
        inside: (m,) uint32, the patterns collected so far; those of a part that may not fit are only counted.
        tally: (2,) int64, added to: counts above `high` and inside.
    """
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, row.size, PART):
        part = row[begin : begin + PART]
        _put_magnitudes(part, patterns)
        _collect_marked(patterns, part.size, low, high, marks, inside, tally)


@kernel
def count_and_collect_deltas(
    bits: U16 | U32, base: U16 | U32, wide: bool, low: np.uint32, high: np.uint32, inside: U32, tally: I64
) -> None:
    """`count_and_collect` of the differences of two stored rows, without a float32 row in between.

    Args:
        bits: (n,) uint16 or uint32: bfloat16 or float32 as stored.
        base: (n,) of the same dtype, subtracted.
        wide: True for float32, False for bfloat16.
        low: uint32 pattern.
        high: uint32 pattern.
        inside: As for `count_and_collect`.
        tally: (2,) int64, added to.
    """
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, bits.size, PART):
        part = bits[begin : begin + PART]
        _put_differences(part, base[begin : begin + PART], wide, patterns)
        _collect_marked(patterns, part.size, low, high, marks, inside, tally)


@kernel
def put_into_bins(
    row: F32, low: np.uint32, high: np.uint32, shift: np.uint32, bins: I64, ends: U32Rows, tally: I64
) -> None:
    """Histogram of the magnitudes in [low, high] by their leading bits, with the extent of each bin; count those above.

    Args:
        row: (n,) float32.
        low: uint32 pattern.
        high: uint32 pattern.
        shift: uint32; the bin of a pattern is (pattern - low) >> shift.
        bins: (bins,) int64, added to.
        ends: (bins, 2) uint32, minimum and maximum pattern per bin, updated.
        tally: (2,) int64, added to, as for `count_and_collect`.
    """
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, row.size, PART):
        part = row[begin : begin + PART]
        _put_magnitudes(part, patterns)
        _put_marked(patterns, part.size, low, high, shift, marks, bins, ends, tally)


@kernel
def put_deltas_into_bins(
    bits: U16 | U32,
    base: U16 | U32,
    wide: bool,
    low: np.uint32,
    high: np.uint32,
    shift: np.uint32,
    bins: I64,
    ends: U32Rows,
    tally: I64,
) -> None:
    """`put_into_bins` of the differences of two stored rows; arguments as there and for `count_and_collect_deltas`."""
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, bits.size, PART):
        part = bits[begin : begin + PART]
        _put_differences(part, base[begin : begin + PART], wide, patterns)
        _put_marked(patterns, part.size, low, high, shift, marks, bins, ends, tally)


@kernel
def _put_magnitudes(row: Any, patterns: Any) -> None:
    for i in range(row.size):
        patterns[i] = magnitude_of(row[i])


@kernel
def _put_differences(bits: Any, base: Any, wide: bool, patterns: Any) -> None:
    """Two loops: a shift by a constant costs half as much as one by a variable."""
    if wide:
        for i in range(bits.size):
            patterns[i] = magnitude_of(float_of(bits[i]) - float_of(base[i]))
    else:
        for i in range(bits.size):
            number = float_of(np.uint32(bits[i]) << np.uint32(16))
            patterns[i] = magnitude_of(number - float_of(np.uint32(base[i]) << np.uint32(16)))


@kernel
def _collect_marked(patterns: Any, n: int, low: Any, high: Any, marks: Any, inside: Any, tally: Any) -> None:
    above, n_marked = _mark(patterns[:n], low, high, marks)
    _append_marked(patterns, marks, n_marked, inside, tally[1])
    tally[0] += above
    tally[1] += n_marked


@kernel
def _put_marked(
    patterns: Any, n: int, low: Any, high: Any, shift: Any, marks: Any, bins: Any, ends: Any, tally: Any
) -> None:
    above, n_marked = _mark(patterns[:n], low, high, marks)
    _append_marked(patterns, marks, n_marked, patterns[PART:], 0)
    _put_all(patterns[PART : PART + n_marked], low, shift, bins, ends)
    tally[0] += above
    tally[1] += n_marked


@kernel
def _mark(patterns: Any, low: Any, high: Any, marks: Any) -> Any:
    """Mark the patterns in [low, high]; return the counts above `high` and marked."""
    over, from_low, width = np.uint32(0), np.uint32(0), np.uint32(high - low)
    for i in range(patterns.size):
        over += np.uint32(patterns[i] > high)
        from_low += np.uint32(patterns[i] >= low)
    for i in range(patterns.size):
        marks[i] = np.uint8(np.uint32(patterns[i] - low) <= width)
    marks[patterns.size :] = 0
    return np.int64(over), np.int64(from_low) - np.int64(over)


@kernel
def _append_marked(patterns: Any, marks: Any, n_marked: Any, inside: Any, used: Any) -> None:
    """Append the marked patterns. Each is written, then counted or not: no branch to mispredict.

    Where few are marked, eight marks are tested at a time, as one word.
    """
    if n_marked == 0 or used + n_marked >= inside.size:
        return
    if n_marked * _DENSE > marks.size:
        for i in range(marks.size):
            inside[used] = patterns[i]
            used += np.int64(marks[i])
        return
    eights = marks.view(np.uint64)
    for eight in range(eights.size):
        if eights[eight] != 0:
            for i in range(8 * eight, 8 * eight + 8):
                inside[used] = patterns[i]
                used += np.int64(marks[i])


@kernel
def _put_all(patterns: Any, low: Any, shift: Any, bins: Any, ends: Any) -> None:
    for i in range(patterns.size):
        bits = patterns[i]
        bin = np.uint32(np.uint32(bits - low) >> shift)
        bins[bin] += 1
        ends[bin, 0] = min(ends[bin, 0], bits)
        ends[bin, 1] = max(ends[bin, 1], bits)


@kernel
def count_equal(row: F32, value: np.uint32) -> Any:
    """Count the magnitudes whose pattern is `value`."""
    count = np.int64(0)
    for i in range(row.size):
        count += np.int64(magnitude_of(row[i]) == value)
    return count


@kernel
def count_equal_deltas(bits: U16 | U32, base: U16 | U32, wide: bool, value: np.uint32) -> Any:
    """`count_equal` of the differences of two stored rows; arguments as for `count_and_collect_deltas`."""
    patterns, count = scratch(PART, np.uint32), np.int64(0)
    for begin in range(0, bits.size, PART):
        part, equal = bits[begin : begin + PART], np.uint32(0)
        _put_differences(part, base[begin : begin + PART], wide, patterns)
        for i in range(part.size):
            equal += np.uint32(patterns[i] == value)
        count += np.int64(equal)
    return count


@kernel
def position_of_equal(row: F32, value: np.uint32, nth: int) -> Any:
    """Index of the `nth` (from 1) magnitude whose pattern is `value`; -1 if there are fewer."""
    for i in range(row.size):
        if magnitude_of(row[i]) == value:
            nth -= 1
            if nth == 0:
                return i
    return -1
