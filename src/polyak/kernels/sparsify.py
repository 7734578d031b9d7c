"""Sparsify the task vectors of a tile in place: by thresholds, or at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..native import F32, F64, U32, F32Rows, I64Rows, U32Rows, kernel, scratch
from ._lanes import total
from .philox import TOGETHER, Stream, uniform

_LANES = 128  # partial sums


@kernel
def trim(stack: F32Rows, value: F32Rows, last: I64Rows, row: int, start: int) -> None:
    """Keep the largest magnitudes per row: zero those below a threshold, and those equal to it after an index.

    Args:
        stack: (k, n) float32, changed.
        value: (k, rows) float32, the thresholds.
        last: (k, rows) int64, index in the tensor of the last entry equal to the threshold that is kept.
        row: Entries per row of the tensor.
        start: Index in the tensor of the first entry.
    """
    _cut(stack, value, last, row, start, True)


@kernel
def trim_from(stack: Any, start: int, value: Any, last: Any, row: int) -> None:
    """`trim` of a tile that begins with entry `start` of the tensor and may overlap rows partly."""
    for model in range(stack.shape[0]):
        r, begin = start // row, 0
        while begin < stack.shape[1]:
            end = min((r + 1) * row - start, stack.shape[1])
            part, behind = stack[model, begin:end], last[model, r] - start - begin
            if behind >= end - begin:
                _keep_from(part, value[model, r])
            else:
                _cut_row(part, value[model, r], np.int32(max(behind, -1)), True)
            r, begin = r + 1, end


@kernel
def _keep_from(part: Any, smallest: Any) -> None:
    for i in range(part.size):
        part[i] = part[i] if abs(part[i]) >= smallest else np.float32(0)


@kernel
def shave(stack: F32Rows, value: F32Rows, last: I64Rows, row: int, start: int) -> None:
    """Zero what `trim` keeps; the same arguments."""
    _cut(stack, value, last, row, start, False)


@kernel
def _cut(stack: Any, value: Any, last: Any, row: int, start: int, keep: bool) -> None:
    for model in range(stack.shape[0]):
        for r in range(value.shape[1]):
            begin = max((start // row + r) * row - start, 0)
            part = stack[model, begin : min((start // row + r + 1) * row - start, stack.shape[1])]
            smallest, behind = value[model, r], last[model, r] - start - begin
            _cut_row(part, smallest, np.int32(min(max(behind, -1), part.size)), keep)


@kernel
def _cut_row(part: Any, smallest: Any, last: Any, keep: bool) -> None:
    for i in range(part.size):
        magnitude = abs(part[i])
        inside = magnitude > smallest or (magnitude == smallest and np.int32(i) <= last)
        part[i] = part[i] if inside == keep else np.float32(0)


def drop(stack: Any, chance: Stream, density: Any, factor: Any) -> None:
    """`drop_all` with a stream of random numbers."""
    drop_all(stack, chance.start, chance.keys, density, factor)


@kernel
def drop_all(stack: F32Rows, start: int, keys: U32Rows, density: F32, factor: F32) -> None:
    """Keep each entry with the probability of its model, times a factor per model; else zero it.

    Args:
        stack: (k, n) float32, changed.
        start: Index in the tensor of the first entry.
        keys: (k, 2) uint32, of the random numbers.
        density: (k,) float32.
        factor: (k,) float32.
    """
    for model in range(stack.shape[0]):
        if density[model] < 1:
            drop_by(stack[model], keys[model], start, density[model], factor[model])
        else:
            for i in range(stack.shape[1]):
                stack[model, i] *= factor[model]


@kernel
def drop_by(row: F32, key: U32, start: int, density: np.float32, factor: np.float32) -> None:
    """Keep each entry whose random number is below the density, times a factor; zero the others.

    Args:
        row: (n,) float32, changed.
        key: (2,) uint32, of the random numbers.
        start: Index in the tensor of the first entry.
        density: float32.
        factor: float32.
    """
    units = scratch(TOGETHER, np.float32)
    for begin in range(0, row.size, TOGETHER):
        part = row[begin : begin + TOGETHER]
        uniform(units[: part.size], key, start + begin)
        for i in range(part.size):
            kept = part[i] * factor
            part[i] = kept if units[i] < density else np.float32(0)


@kernel
def magnitudes(stack: F32Rows, out: F64) -> None:
    """Write the L1 norm of each model's entries, in float64, summed in lanes, an order that vectorises.

    Args:
        stack: (k, n) float32.
        out: (k,) float64, written.
    """
    lanes = scratch(_LANES, np.float64)
    for model in range(stack.shape[0]):
        lanes[:] = 0.0
        for begin in range(0, stack.shape[1], _LANES):
            part = stack[model, begin : begin + _LANES]
            for i in range(part.size):
                lanes[i] += np.float64(abs(part[i]))
        out[model] = total(lanes)


def before_and_after(stack: Any, change: Callable[[], object]) -> Any:
    """L1 norms of the models before and after a change of the stack: (2 k,)."""
    sums = np.empty((2, len(stack)))
    magnitudes(stack, sums[0])
    change()
    magnitudes(stack, sums[1])
    return sums.reshape(-1)
