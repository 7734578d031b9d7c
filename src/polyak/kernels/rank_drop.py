"""Drop entries at random with a probability by rank in the row: by bins, else by sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32Rows, U64Rows, kernel
from .philox import uniform
from .rank_bins import keep_by_rank, room_for

_SMALLER = np.uint32(0x7FFFFFFF)


def thin(rows: Any, key: Any, start: int, window: tuple[Any, Any], factor: Any, *, inverse: bool) -> None:
    """Keep each entry with a probability that falls linearly with its rank by magnitude in its row.

    Args:
        rows: (r, n) float32, changed.
        key: (2,) uint32, of the random numbers.
        start: Index in the tensor of the first entry.
        window: Mean of the probabilities, and half their range.
        factor: Multiplies kept entries.
        inverse: True to divide kept entries by their probability.
    """
    middle, half = (np.float32(number) for number in window)
    half, done, n = half if rows.shape[1] > 1 else np.float32(0), 0, rows.shape[1]
    if inverse:  # needs every rank; otherwise the rank matters only near the decision
        _thin_sorted(rows, key, start, (middle, half), factor, inverse=True)
        return
    room = room_for(n)
    while done < len(rows):
        done += keep_by_rank(rows[done:], key, start + done * n, middle, half, np.float32(factor), *room)
        if done == len(rows):
            return
        _thin_sorted(rows[done : done + 1], key, start + done * n, (middle, half), factor, inverse=False)
        done += 1


def _thin_sorted(rows: Any, key: Any, start: int, window: tuple[Any, Any], factor: Any, *, inverse: bool) -> None:
    """Sort rows as integers of magnitude and index, by NumPy's vectorised sort."""
    packed, numbers = np.empty(rows.shape, np.uint64), np.empty(rows.shape, np.float32)
    keep = np.empty(rows.shape, np.float32)
    _pack(rows, packed)
    packed.sort(axis=1)
    _probabilities(packed, *window, keep)
    uniform(numbers.reshape(-1), key, start)
    _keep_below(rows, numbers, keep, np.float32(factor), inverse)


@kernel
def _pack(rows: F32Rows, packed: U64Rows) -> None:
    """Magnitude and index as one integer, which sorts largest first, and equal magnitudes by index."""
    for r in range(rows.shape[0]):
        row, out = rows[r], packed[r]
        for i in range(row.size):
            bits = np.uint32(np.float32(row[i]).view(np.uint32) & _SMALLER)
            out[i] = np.uint64(np.uint64(np.uint64(np.uint32(_SMALLER - bits)) << np.uint64(32)) | np.uint64(i))


@kernel
def _probabilities(packed: U64Rows, middle: np.float32, half: np.float32, keep: F32Rows) -> None:
    for r in range(packed.shape[0]):
        ordered, out = packed[r], keep[r]
        steps = np.float32(max(ordered.size - 1, 1))
        for place in range(ordered.size):
            rank = np.float32(ordered.size - 1 - place) / steps
            out[np.uint32(ordered[place])] = (middle - half) + np.float32(2) * half * rank


@kernel
def _keep_below(rows: F32Rows, numbers: F32Rows, keep: F32Rows, factor: np.float32, inverse: bool) -> None:
    for r in range(rows.shape[0]):
        row, drawn, probability = rows[r], numbers[r], keep[r]
        for i in range(row.size):
            kept = row[i] * factor
            kept = kept / probability[i] if inverse else kept
            row[i] = kept if drawn[i] < probability[i] else np.float32(0)
