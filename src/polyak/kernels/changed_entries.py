"""Merges by which models changed an entry: magnitude above epsilon, largest magnitude, mean of the active models."""

from __future__ import annotations

import numpy as np

from ..native import F32, F64, F32Rows, kernel, scratch

_BLOCK = 1024


@kernel
def count_active(stack: F32Rows, epsilon: np.float32, out: F64) -> None:
    """Count the active entries (magnitude > epsilon) of each model: those of several models, then its own alone.

    Args:
        stack: (k, n) float32.
        epsilon: float32.
        out: (2 k,) float64, written: shared counts, then unshared counts.
    """
    k, zero, one = stack.shape[0], np.float32(0), np.float32(1)
    count = scratch(_BLOCK, np.float32)
    out[:] = 0
    for begin in range(0, stack.shape[1], _BLOCK):
        # Two sweeps over a block in cache: how many models are active per entry, then the counts per model.
        count[:] = zero
        for model in range(k):
            row = stack[model, begin : begin + _BLOCK]
            for i in range(row.size):
                count[i] += one if abs(row[i]) > epsilon else zero
        for model in range(k):
            row = stack[model, begin : begin + _BLOCK]
            every, alone = np.uint32(0), np.uint32(0)
            for i in range(row.size):
                changed = np.uint32(abs(row[i]) > epsilon)
                every = np.uint32(every + changed)
                alone = np.uint32(alone + np.uint32(changed & np.uint32(count[i] == one)))
            out[model] += np.float64(every) - np.float64(alone)
            out[k + model] += np.float64(alone)


@kernel
def largest_of(out: F32, stack: F32Rows, scale: float) -> None:
    """Write the entry of the largest magnitude, the positive one if two are opposite, times a scale.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        scale: Multiplies the result.
    """
    factor, lowest = np.float32(scale), scratch(_BLOCK, np.float32)
    for begin in range(0, out.size, _BLOCK):
        # Maximum in `part` and minimum in `lowest`, without branches; the larger magnitude of the two wins.
        part, row = out[begin : begin + _BLOCK], stack[0, begin : begin + _BLOCK]
        for i in range(part.size):
            part[i], lowest[i] = row[i], row[i]
        for model in range(1, stack.shape[0]):
            row = stack[model, begin : begin + _BLOCK]
            for i in range(part.size):
                part[i], lowest[i] = max(part[i], row[i]), min(lowest[i], row[i])
        for i in range(part.size):
            part[i] = (part[i] if part[i] >= -lowest[i] else lowest[i]) * factor


@kernel
def mean_of_active(out: F32, stack: F32Rows, epsilon: np.float32, alone: F32) -> None:
    """Write the mean over the active models (magnitude > epsilon); a sole active model is multiplied by its factor.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        epsilon: float32; entries up to this magnitude are inactive.
        alone: (k,) float32, factor of an entry where its model is the only active one.
    """
    count, single = scratch(_BLOCK, np.float32), scratch(_BLOCK, np.float32)
    zero, one = np.float32(0), np.float32(1)
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        part[:] = zero
        count[:] = zero
        single[:] = zero
        for model in range(stack.shape[0]):
            row, factor = stack[model, begin : begin + _BLOCK], alone[model]
            for i in range(part.size):
                entry = row[i] if abs(row[i]) > epsilon else zero
                part[i] += entry
                single[i] += factor * entry
                count[i] += one if abs(row[i]) > epsilon else zero
        for i in range(part.size):
            part[i] = single[i] if count[i] == one else part[i] / max(count[i], one)


@kernel
def times_by_row(row: F32, start: int, factor: F32, length: int) -> None:
    """Replace entries by their magnitudes times a factor per row of the tensor.

    Args:
        row: (n,) float32, changed.
        start: Position of the first entry in its row of the tensor.
        factor: (rows,) float32.
        length: Entries per row of the tensor.
    """
    for r in range((start + row.size + length - 1) // length):
        part, times = row[max(r * length - start, 0) : min((r + 1) * length - start, row.size)], factor[r]
        for i in range(part.size):
            part[i] = abs(part[i]) * times


@kernel
def keep_beyond(out: F32, stack: F32Rows, start: int, factor: F32, length: int, threshold: float) -> None:
    """Write the entries of the first model whose magnitude, times a factor per row, reaches a threshold, else zero.

    Args:
        out: (n,) float32, written.
        stack: (1, n) float32.
        start: Index in the tensor of the first entry.
        factor: (rows,) float32.
        length: Entries per row of the tensor.
        threshold: The threshold.
    """
    least, zero = np.float32(threshold), np.float32(0)
    for r in range(start // length, (start + out.size + length - 1) // length):
        begin, end = max(r * length - start, 0), min((r + 1) * length - start, out.size)
        part, row, times = out[begin:end], stack[0, begin:end], factor[r]
        for i in range(part.size):
            part[i] = row[i] if abs(row[i]) * times >= least else zero
