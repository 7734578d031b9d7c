"""Exact order statistics of magnitudes, without sorting.

A magnitude is handled as the bit pattern of its float32 without the sign: an unsigned integer in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import inlined, kernel, scratch

PART = 1024  # entries whose patterns and marks stay in the first-level cache
_SPACE = 2 * PART + 1  # patterns of a part, and those of them that are marked
LANES = 256  # entries that are summed apart
_STEP, _WIDTHS, _FIRST_WIDTH = 0.1, 4.0, 0.2  # how a guess learns
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_DENSE = 32  # one mark in so many, and walking all of them is quicker than finding the marked
_COUNTED = 256  # entries whose equals are counted before one of them is looked for


@inlined
def _magnitude(number: Any) -> Any:
    return np.uint32(np.float32(number).view(np.uint32) & _MAGNITUDE)


@inlined
def _float(bits: Any) -> Any:
    return np.uint32(bits).view(np.float32)


@kernel
def count_and_collect(row: Any, low: Any, high: Any, inside: Any, tally: Any) -> None:
    """Count the magnitudes above `high` and append those in [low, high] to `inside`.

    Args:
        row: (n,) float32.
        low: uint32 pattern.
        high: uint32 pattern.
        inside: uint32 patterns found so far; those of a part that may not fit are only counted.
        tally: (2,) int64, added to: how many lie above, and how many were found inside in all.
    """
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, row.size, PART):
        part = row[begin : begin + PART]
        _put_magnitudes(part, patterns)
        over, found = _mark(patterns[: part.size], low, high, marks)
        _append_marked(patterns, marks, found, inside, tally[1])
        tally[0] += over
        tally[1] += found


@kernel
def count_and_collect_deltas(bits: Any, base: Any, wide: bool, low: Any, high: Any, inside: Any, tally: Any) -> None:
    """`count_and_collect` of the differences of two stored rows, which never become a row of float32.

    Args:
        bits: (n,) uint16 or uint32: bfloat16 or float32 as stored.
        base: (n,) the same, to subtract.
        wide: Whether they are float32.
        low: uint32 pattern.
        high: uint32 pattern.
        inside: As for `count_and_collect`.
        tally: (2,) int64, added to.
    """
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, bits.size, PART):
        part = bits[begin : begin + PART]
        _put_differences(part, base[begin : begin + PART], wide, patterns)
        over, found = _mark(patterns[: part.size], low, high, marks)
        _append_marked(patterns, marks, found, inside, tally[1])
        tally[0] += over
        tally[1] += found


@kernel
def put_into_bins(row: Any, low: Any, high: Any, shift: Any, bins: Any, ends: Any, tally: Any) -> None:
    """Count the magnitudes above `high`, and those in [low, high] by their leading bits; keep the ends of each bin.

    Args:
        row: (n,) float32.
        low: uint32 pattern.
        high: uint32 pattern.
        shift: uint32; the bin of a pattern is (pattern - low) >> shift.
        bins: int64, added to.
        ends: (bins, 2) uint32, the smallest and the largest pattern of each bin so far; widened.
        tally: (2,) int64, added to, as for `count_and_collect`.
    """
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, row.size, PART):
        part = row[begin : begin + PART]
        _put_magnitudes(part, patterns)
        over, found = _mark(patterns[: part.size], low, high, marks)
        _append_marked(patterns, marks, found, patterns[PART:], 0)
        _put_all(patterns[PART : PART + found], low, shift, bins, ends)
        tally[0] += over
        tally[1] += found


@kernel
def put_deltas_into_bins(
    bits: Any, base: Any, wide: bool, low: Any, high: Any, shift: Any, bins: Any, ends: Any, tally: Any
) -> None:
    """`put_into_bins` of the differences of two stored rows; arguments as there and for `count_and_collect_deltas`."""
    patterns, marks = scratch(_SPACE, np.uint32), scratch(PART, np.uint8)
    for begin in range(0, bits.size, PART):
        part = bits[begin : begin + PART]
        _put_differences(part, base[begin : begin + PART], wide, patterns)
        over, found = _mark(patterns[: part.size], low, high, marks)
        _append_marked(patterns, marks, found, patterns[PART:], 0)
        _put_all(patterns[PART : PART + found], low, shift, bins, ends)
        tally[0] += over
        tally[1] += found


@kernel
def _put_magnitudes(row: Any, patterns: Any) -> None:
    for i in range(row.size):
        patterns[i] = _magnitude(row[i])


@kernel
def _put_differences(bits: Any, base: Any, wide: bool, patterns: Any) -> None:
    """Two loops, because a shift that is known when compiling costs half as much."""
    if wide:
        for i in range(bits.size):
            patterns[i] = _magnitude(_float(bits[i]) - _float(base[i]))
    else:
        for i in range(bits.size):
            number = _float(np.uint32(bits[i]) << np.uint32(16))
            patterns[i] = _magnitude(number - _float(np.uint32(base[i]) << np.uint32(16)))


@kernel
def _mark(patterns: Any, low: Any, high: Any, marks: Any) -> Any:
    """Mark what lies in [low, high]: how many lie above, and how many are marked."""
    over, from_low, width = np.uint32(0), np.uint32(0), np.uint32(high - low)
    for i in range(patterns.size):
        over += np.uint32(patterns[i] > high)
        from_low += np.uint32(patterns[i] >= low)
    for i in range(patterns.size):
        marks[i] = np.uint8(np.uint32(patterns[i] - low) <= width)
    marks[patterns.size :] = 0
    return np.int64(over), np.int64(from_low) - np.int64(over)


@kernel
def _append_marked(patterns: Any, marks: Any, found: Any, inside: Any, used: Any) -> None:
    """Append the marked patterns. Each is written in any case and then counted or not: no branch to guess wrong.

    Where few are marked, only those eights of marks that are not all zero are walked.
    """
    if found == 0 or used + found >= inside.size:
        return
    if found * _DENSE > marks.size:
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
def _position(patterns: Any, value: Any, nth: Any) -> Any:
    """`position_of_equal` among patterns; they are counted by the part before one is looked for."""
    for begin in range(0, patterns.size, _COUNTED):
        part = patterns[begin : begin + _COUNTED]
        found = np.uint32(0)
        for i in range(part.size):
            found += np.uint32(part[i] == value)
        if np.int64(found) < nth:
            nth -= np.int64(found)
            continue
        for i in range(part.size):
            nth -= np.int64(part[i] == value)
            if nth == 0:
                return begin + i
    return -1


@kernel
def cut_rows(
    rows: Any, counts: Any, first: int, value: Any, last: Any, guess: Any, patterns: Any, marks: Any, inside: Any
) -> None:
    """For each row and count, the count-th largest magnitude, and the index of the last of its equals that survive.

    A row's boundary is looked for near where the rows before had theirs, as a multiple of the row's mean magnitude;
    where that bracket misses it, in the whole row. So `guess` decides how long it takes, never what is found.

    Args:
        rows: (r, n) float32.
        counts: (c,) int64, 0 < count <= n; how many survive: those above the value, and of its equals the first ones.
        first: Index in the tensor of the first entry.
        value: (c, r) float32, written.
        last: (c, r) int64, written: indices in the tensor.
        guess: (c, 2) float64, updated: the boundary as a multiple of the mean, and how much that varies; infinity
            in the beginning.
        patterns: (n up to a multiple of LANES,) uint32, overwritten.
        marks: As many uint8, overwritten.
        inside: (n + 1,) uint32, overwritten.
    """
    n = rows.shape[1]
    for r in range(rows.shape[0]):
        row = rows[r]
        _put_magnitudes(row, patterns)
        mean = _sum(patterns[:n], inside[:LANES]) / n
        for c in range(counts.size):
            low, high = _bracket(guess[c], mean)
            above, found = _mark(patterns[:n], low, high, marks)
            if not above < counts[c] <= above + found:
                low, high = np.uint32(0), np.uint32(_MAGNITUDE)
                above, found = _mark(patterns[:n], low, high, marks)
            _append_marked(patterns, marks, found, inside, 0)
            left = counts[c] - above
            pattern = _largest(inside[:found], left, low, high)
            left -= _count_above(inside[:found], pattern)
            value[c, r] = _float(pattern)
            last[c, r] = first + r * n + _position(patterns[:n], pattern, left)
            _learn(guess[c], value[c, r], mean)


@inlined
def _bracket(guess: Any, mean: Any) -> Any:
    if not guess[1] < 1:
        return np.uint32(0), _MAGNITUDE
    low, high = mean * guess[0] * (1 - guess[1]), mean * guess[0] * (1 + guess[1])
    return np.float32(low).view(np.uint32), np.float32(high).view(np.uint32)


@inlined
def _learn(guess: Any, value: Any, mean: Any) -> None:
    """Move the guess some way towards what was found, and its width towards some times the distance."""
    if mean > 0 and value > 0:
        found = np.float64(value) / mean
        if guess[1] < 1:
            distance = abs(found / guess[0] - 1)
            guess[0] += _STEP * (found - guess[0])
            guess[1] += _STEP * (_WIDTHS * distance - guess[1])
        else:
            guess[0], guess[1] = found, _FIRST_WIDTH


@kernel
def _sum(patterns: Any, lanes: Any) -> Any:
    """The sum of magnitudes, roughly: in lanes of float32, which vector code can keep."""
    sums = lanes.view(np.float32)
    sums[:] = np.float32(0)
    for begin in range(0, patterns.size, LANES):
        part = patterns[begin : begin + LANES]
        for i in range(part.size):
            sums[i] += _float(part[i])
    total = 0.0
    for i in range(sums.size):
        total += np.float64(sums[i])
    return total


@kernel
def _count_above(patterns: Any, pattern: Any) -> Any:
    found = np.uint32(0)
    for i in range(patterns.size):
        found += np.uint32(patterns[i] > pattern)
    return np.int64(found)


@kernel
def _largest(patterns: Any, nth: Any, low: Any, high: Any) -> Any:
    """The `nth` (from 1) largest of patterns in [low, high], by halving the range: counting is vector code."""
    while low < high:
        middle = np.uint32(low + np.uint32(np.uint32(high - low) >> np.uint32(1)))
        if _count_above(patterns, middle) < nth:
            high = middle
        else:
            low = np.uint32(middle + np.uint32(1))
    return low
