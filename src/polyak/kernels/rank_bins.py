"""Drop entries at random with a probability that depends on their rank in the row (MAGPRUNE), without sorting.

An entry whose random number is below all probabilities is kept, and one above all is dropped, whatever its rank. For
the others, a histogram of magnitudes bounds the ranks per bin, which decides most of them. The few that remain are
ranked exactly, by counting.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, I64, U8, U32, F32Rows, inlined, kernel, scratch
from .philox import TOGETHER, uniform
from .topk import magnitude_of

_REACH = 27  # the bins cover this many bits below the largest pattern of a row: sixteen powers of two
_FEWEST, _MOST = 8, 16  # minimum and maximum of log2(bins)
_REMEMBERED = 1024  # patterns whose rank is cached
_LOOKS = 512  # counting passes over a row beyond which a sort is faster
_HASH = np.uint32(2654435761)


def room_for(n: int) -> tuple[Any, ...]:
    """Buffers for `keep_by_rank`, for rows of `n` entries."""
    bins = 1 << min(max((n - 1).bit_length() - 1, _FEWEST), _MOST)
    return (
        np.empty(bins, np.int64),
        np.empty(bins, np.float32),
        np.empty(bins, np.float32),
        np.empty(n, np.uint8),
        np.empty(n + 8, np.uint32),
        np.empty(n + 8, np.float32),
    )


@kernel
def keep_by_rank(
    rows: F32Rows,
    key: U32,
    start: int,
    middle: np.float32,
    half: np.float32,
    factor: np.float32,
    counts: I64,
    surely: F32,
    perhaps: F32,
    marks: U8,
    indices: U32,
    numbers: F32,
) -> int:
    """Keep each entry with a probability that falls linearly with its rank by magnitude in its row, else zero it.

    Returns the number of rows done. It stops before a row in which the bins leave too many entries undecided, such as
    one whose largest entry dwarfs all others.

    Args:
        rows: (r, n) float32, changed.
        key: (2,) uint32, of the random numbers.
        start: Index in the tensor of the first entry.
        middle: float32, the mean probability.
        half: float32, half the range of the probabilities.
        factor: float32; multiplies kept entries.
        counts: (bins,) int64, a power of two of them, overwritten like all that follow: buffers from `room_for`.
        surely: (bins,) float32.
        perhaps: (bins,) float32.
        marks: (n,) uint8.
        indices: (n + 8,) uint32.
        numbers: (n + 8,) float32.
    """
    for r in range(rows.shape[0]):
        row = rows[r]
        most, shift = _largest(row), _shift(counts.size)
        _count(row, most, shift, counts)
        _bound(counts, row.size, middle, half, surely, perhaps)
        left = _decide(row, key, start + r * row.size, most, shift, surely, perhaps, marks, indices, numbers)
        if not _rank(row, middle, half, marks, indices[:left], numbers):
            return r
        for i in range(row.size):
            kept = row[i] * factor
            row[i] = kept if marks[i] != 0 else np.float32(0)
    return rows.shape[0]


@inlined
def probability(place: Any, n: Any, middle: Any, half: Any) -> Any:
    """Probability to keep the entry at a place from the largest (0) among n."""
    rank = np.float32(n - 1 - place) / np.float32(max(n - 1, 1))
    return (middle - half) + np.float32(2) * half * rank


@kernel
def _largest(row: Any) -> Any:
    most = np.uint32(0)
    for i in range(row.size):
        most = max(most, magnitude_of(row[i]))
    return most


@kernel
def _shift(bins: Any) -> Any:
    shift = np.uint32(_REACH)
    while bins > 1:
        bins //= 2
        shift = np.uint32(shift - np.uint32(1))
    return shift


@inlined
def _put_bins(part: Any, most: Any, shift: Any, last: Any, bins: Any) -> None:
    """The bin of each entry, from the largest magnitudes down; tiny entries share the last bin."""
    for i in range(part.size):
        bins[i] = min(np.uint32(np.uint32(most - magnitude_of(part[i])) >> shift), last)


@kernel
def _count(row: Any, most: Any, shift: Any, counts: Any) -> None:
    bins, last = scratch(TOGETHER, np.uint32), np.uint32(counts.size - 1)
    counts[:] = 0
    for begin in range(0, row.size, TOGETHER):
        part = row[begin : begin + TOGETHER]
        _put_bins(part, most, shift, last, bins)
        for i in range(part.size):
            counts[bins[i]] += 1


@kernel
def _bound(counts: Any, n: int, middle: Any, half: Any, surely: Any, perhaps: Any) -> None:
    """Minimum and maximum probability per bin, from the ranks of its first and last entry."""
    above = np.int64(0)
    for bin in range(counts.size):
        first = above
        above += counts[bin]
        counts[bin] = first
    for bin in range(counts.size):
        last = counts[bin + 1] if bin + 1 < counts.size else n
        surely[bin] = probability(last - 1, n, middle, half)
        perhaps[bin] = probability(counts[bin], n, middle, half)


@kernel
def _decide(
    row: Any,
    key: Any,
    start: int,
    most: Any,
    shift: Any,
    surely: Any,
    perhaps: Any,
    marks: Any,
    indices: Any,
    numbers: Any,
) -> Any:
    """Mark the entries to keep; list those the bins leave undecided, with their random numbers; return their count."""
    bins, units = scratch(TOGETHER, np.uint32), scratch(TOGETHER, np.float32)
    open_, last, left = scratch(TOGETHER, np.uint8), np.uint32(surely.size - 1), np.uint64(0)
    eights = open_.view(np.uint64)
    for begin in range(0, row.size, TOGETHER):
        part, marked = row[begin : begin + TOGETHER], marks[begin : begin + TOGETHER]
        uniform(units[: part.size], key, start + begin)
        _put_bins(part, most, shift, last, bins)
        open_[part.size :] = 0
        for i in range(part.size):
            kept = np.uint8(units[i] < surely[bins[i]])
            marked[i] = kept
            open_[i] = np.uint8(units[i] < perhaps[bins[i]]) ^ kept
        for eight in range((part.size + 7) // 8):
            if eights[eight] != 0:
                for i in range(8 * eight, 8 * eight + 8):
                    indices[left] = np.uint32(begin + i)
                    numbers[left] = units[i]
                    left = np.uint64(left + np.uint64(open_[i]))
    return np.int64(left)


@kernel
def _rank(row: Any, middle: Any, half: Any, marks: Any, indices: Any, numbers: Any) -> bool:
    """Decide the listed entries by their exact rank; False if a sort would be faster.

    Differences of bfloat16 have many equal entries, so counts per pattern are cached in a small hash table.
    """
    pattern, above = scratch(_REMEMBERED, np.uint32), scratch(_REMEMBERED, np.int64)
    before, equals = scratch(_REMEMBERED, np.int64), scratch(_REMEMBERED, np.int64)
    before[:] = -1
    looks = 0
    for which in range(indices.size):
        i = np.int64(indices[which])
        bits = magnitude_of(row[i])
        at = np.uint32(np.uint32(bits * _HASH) >> np.uint32(22))
        if before[at] < 0 or pattern[at] != bits:
            pattern[at], before[at], equals[at] = bits, 0, 0
            above[at] = _count_above(row, bits)
            looks += 1
        if looks > _LOOKS:
            return False
        equals[at] += _count_equal(row[before[at] : i], bits)
        before[at] = i
        marks[i] = np.uint8(numbers[which] < probability(above[at] + equals[at], row.size, middle, half))
    return True


@kernel
def _count_above(row: Any, bits: Any) -> Any:
    count = np.uint32(0)
    for i in range(row.size):
        count += np.uint32(magnitude_of(row[i]) > bits)
    return np.int64(count)


@kernel
def _count_equal(row: Any, bits: Any) -> Any:
    count = np.uint32(0)
    for i in range(row.size):
        count += np.uint32(magnitude_of(row[i]) == bits)
    return np.int64(count)
