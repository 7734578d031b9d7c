"""Exact top-k thresholds per row; patterns are those of `topk`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import U32, F32Planes, F64Planes, I64Planes, I64Rows, inlined, kernel, scratch
from ._lanes import total
from .topk import MAGNITUDE, float_of, magnitude_of

_PART = 1024  # entries per part
_EIGHTS = _PART // 8 + 1
LANES = 256  # partial sums
_STEP, _WIDTHS, _FIRST_WIDTH = 0.1, 2.5, 0.2  # of a guess: learning rate, width in mean deviations, first width
_TRIES = 3  # brackets tried beside one that missed, each twice as wide
_COUNTED = 256  # entries per part when searching for the nth equal one


@kernel
def cut_rows(
    rows: F32Planes,
    counts: I64Rows,
    first: int,
    value: F32Planes,
    last: I64Planes,
    guess: F64Planes,
    near: U32,
    indices: U32,
    inside: U32,
) -> None:
    """Per model, row and count: the count-th largest magnitude, and the last of its ties among the top.

    The threshold of a row is searched near that of earlier rows, as a multiple of the row's mean magnitude, and in
    wider brackets where it is not there. So `guess` affects the time, never the result. For counts that keep nothing or
    everything, the value is infinity or -1.

    Args:
        rows: (k, r, n) float32.
        counts: (c, k) int64, entries to keep: those above the value, and the first of its ties.
        first: Index in the tensor of the first entry.
        value: (c, k, r) float32, written.
        last: (c, k, r) int64, written: indices in the tensor.
        guess: (c, k, 2) float64, updated: threshold as a multiple of the mean, and its relative deviation; infinity
            at first.
        near: (n + 1,) uint32, overwritten.
        indices: (n + 1,) uint32, overwritten.
        inside: (max(n + 1, LANES),) uint32, overwritten.
    """
    for model in range(rows.shape[0]):
        for r in range(rows.shape[1]):
            row = rows[model, r]
            mean = _sum(row, inside[:LANES]) / row.size
            n_near = _collect(row, counts, model, guess, mean, near, indices)
            for c in range(counts.shape[0]):
                count = counts[c, model]
                if count <= 0 or count >= row.size:
                    value[c, model, r] = np.float32(np.inf) if count <= 0 else np.float32(-1)
                    last[c, model, r] = -1
                    continue
                pattern, nth = _boundary(near[:n_near], count, guess[c, model], mean, inside)
                value[c, model, r] = float_of(pattern)
                last[c, model, r] = first + r * row.size + np.int64(indices[_position(near[:n_near], pattern, nth)])


@kernel
def _collect(row: Any, counts: Any, model: int, guess: Any, mean: Any, near: Any, indices: Any) -> Any:
    """Collect all patterns from the lowest expected threshold on, with their indices; return how many."""
    least, most = MAGNITUDE, np.int64(0)
    for c in range(counts.shape[0]):
        if 0 < counts[c, model] < row.size:
            low, _ = _bracket(guess[c, model], mean)
            least, most = min(least, low), max(most, counts[c, model])
    if most == 0:
        return np.int64(0)
    n_near = _collect_from(row, least, near, indices)
    tries = 0
    while n_near < most:
        least = np.float32(float_of(least) * np.float32(0.5)).view(np.uint32) if tries < _TRIES else np.uint32(0)
        n_near = _collect_from(row, least, near, indices)
        tries += 1
    return n_near


@kernel
def _collect_from(row: Any, least: Any, near: Any, indices: Any) -> Any:
    """List the eights of marks that are not all zero, then walk those; each entry is written, then counted or not."""
    marks, some = scratch(_PART, np.uint8), scratch(_EIGHTS, np.uint32)
    eights, n_near = marks.view(np.uint64), np.uint64(0)
    for begin in range(0, row.size, _PART):
        part = row[begin : begin + _PART]
        for i in range(part.size):
            marks[i] = np.uint8(magnitude_of(part[i]) >= least)
        marks[part.size :] = 0
        listed = np.uint64(0)
        for eight in range((part.size + 7) // 8):
            some[listed] = np.uint32(8 * eight)
            listed = np.uint64(listed + np.uint64(eights[eight] != 0))
        for which in range(listed):
            for i in range(8):
                at = np.uint64(np.uint64(some[which]) + np.uint64(i))
                indices[n_near] = np.uint32(np.uint64(begin) + at)
                n_near = np.uint64(n_near + np.uint64(marks[at]))
    for i in range(n_near):
        near[i] = magnitude_of(row[np.uint64(indices[i])])
    return np.int64(n_near)


@kernel
def _boundary(near: Any, count: int, guess: Any, mean: Any, inside: Any) -> Any:
    """The count-th largest pattern, and how many of its ties are among the top count."""
    low, high = _bracket(guess, mean)
    above, n_inside = _split(near, low, high, inside)
    tries = 0
    while not above < count <= above + n_inside:
        low, high = _beside(low, high, count <= above, tries)
        above, n_inside = _split(near, low, high, inside)
        tries += 1
    pattern = _largest(inside[:n_inside], count - above, low, high)
    _learn(guess, float_of(pattern), mean)
    return pattern, count - above - _count_above(inside[:n_inside], pattern)


@kernel
def _split(near: Any, low: Any, high: Any, inside: Any) -> Any:
    """Count the patterns above a bracket and inside it; collect those inside."""
    above, n_inside, width = np.int64(0), np.int64(0), np.uint32(high - low)
    for i in range(near.size):
        pattern = near[i]
        inside[n_inside] = pattern
        n_inside += np.int64(np.uint32(pattern - low) <= width)
        above += np.int64(pattern > high)
    return above, n_inside


@inlined
def _bracket(guess: Any, mean: Any) -> Any:
    if not guess[1] < 1:
        return np.uint32(0), MAGNITUDE
    low, high = mean * guess[0] * (1 - guess[1]), mean * guess[0] * (1 + guess[1])
    return np.float32(low).view(np.uint32), np.float32(high).view(np.uint32)


@inlined
def _beside(low: Any, high: Any, is_above: Any, tries: int) -> Any:
    """A bracket next to one that missed; after _TRIES, everything on that side."""
    width = np.uint32(np.uint32(np.uint32(high - low) + np.uint32(1)) << np.uint32(tries))
    if is_above:
        last = np.uint32(high + width) if tries < _TRIES and width < np.uint32(MAGNITUDE - high) else MAGNITUDE
        return np.uint32(high + np.uint32(1)), last
    return np.uint32(low - width) if tries < _TRIES and width < low else np.uint32(0), np.uint32(low - np.uint32(1))


@inlined
def _learn(guess: Any, value: Any, mean: Any) -> None:
    """Exponential moving averages of the threshold, relative to the mean, and of its deviation."""
    if mean > 0 and value > 0:
        ratio = np.float64(value) / mean
        if guess[1] < 1:
            distance = abs(ratio / guess[0] - 1)
            guess[0] += _STEP * (ratio - guess[0])
            guess[1] += _STEP * (_WIDTHS * distance - guess[1])
        else:
            guess[0], guess[1] = ratio, _FIRST_WIDTH


@kernel
def _sum(row: Any, lanes: Any) -> Any:
    """Approximate sum of magnitudes, in float32 lanes so that the loop vectorises."""
    sums = lanes.view(np.float32)
    sums[:] = np.float32(0)
    whole = row.size // (4 * LANES) * (4 * LANES)
    for begin in range(0, whole, 4 * LANES):
        a, b = row[begin : begin + LANES], row[begin + LANES : begin + 2 * LANES]
        c, d = row[begin + 2 * LANES : begin + 3 * LANES], row[begin + 3 * LANES : begin + 4 * LANES]
        for i in range(LANES):
            sums[i] += (abs(a[i]) + abs(b[i])) + (abs(c[i]) + abs(d[i]))
    for begin in range(whole, row.size, LANES):
        part = row[begin : begin + LANES]
        for i in range(part.size):
            sums[i] += abs(part[i])
    return np.float64(total(sums))


@kernel
def _position(patterns: Any, value: Any, nth: Any) -> Any:
    """Index of the `nth` (from 1) pattern equal to `value`; parts are counted before they are searched."""
    for begin in range(0, patterns.size, _COUNTED):
        part = patterns[begin : begin + _COUNTED]
        n_equal = np.uint32(0)
        for i in range(part.size):
            n_equal += np.uint32(part[i] == value)
        if np.int64(n_equal) < nth:
            nth -= np.int64(n_equal)
            continue
        for i in range(part.size):
            nth -= np.int64(part[i] == value)
            if nth == 0:
                return begin + i
    return -1


@kernel
def _count_above(patterns: Any, pattern: Any) -> Any:
    count = np.uint32(0)
    for i in range(patterns.size):
        count += np.uint32(patterns[i] > pattern)
    return np.int64(count)


@kernel
def _largest(patterns: Any, nth: Any, low: Any, high: Any) -> Any:
    """The `nth` (from 1) largest pattern in [low, high], by bisection; the ends are tightened to existing patterns."""
    while low < high:
        middle = np.uint32(low + np.uint32(np.uint32(high - low) >> np.uint32(1)))
        above, highest, lowest = np.uint32(0), np.uint32(0), MAGNITUDE
        for i in range(patterns.size):
            is_above = patterns[i] > middle
            above += np.uint32(is_above)
            highest = max(highest, np.uint32(0) if is_above else patterns[i])
            lowest = min(lowest, patterns[i] if is_above else MAGNITUDE)
        fewer = np.int64(above) < nth
        low, high = low if fewer else lowest, highest if fewer else high
    return low
