"""Per-model masks of a tile: which entries of a merged delta each model keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F32Rows, U8Rows, inlined, kernel, scratch

_BLOCK = 1024


@inlined
def _pack(marks: Any, packed: Any) -> None:
    """Pack marks (n,), 0 or 1, into the bits of (ceil(n / 8),) bytes, lowest bit first."""
    for j in range(packed.size):
        byte = np.uint8(0)
        for bit in range(8):
            byte |= np.uint8(marks[8 * j + bit] << bit)
        packed[j] = byte


@kernel
def pack_agreeing(packed: U8Rows, stack: F32Rows) -> None:
    """Mark where each model has the sign of the sum of the models; a zero sum counts as negative.

    Args:
        packed: (k, ceil(n / 8)) uint8, written: one bit per entry.
        stack: (k, n) float32.
    """
    zero, marks = np.float32(0), scratch(_BLOCK, np.uint8)
    total = scratch(_BLOCK, np.float32)
    for begin in range(0, stack.shape[1], _BLOCK):
        size = min(_BLOCK, stack.shape[1] - begin)
        # Two sweeps over a block in cache: the sum of the models, then one mask per model.
        total[:] = zero
        marks[size:] = 0
        for model in range(stack.shape[0]):
            row = stack[model, begin : begin + size]
            for i in range(size):
                total[i] += row[i]
        for model in range(stack.shape[0]):
            row = stack[model, begin : begin + size]
            for i in range(size):
                marks[i] = np.uint8((row[i] > zero) == (total[i] > zero)) & np.uint8(row[i] != zero)
            _pack(marks, packed[model, begin // 8 : (begin + size + 7) // 8])


@kernel
def pack_needed(packed: U8Rows, stack: F32Rows, merged: F32, weight: F32, tall_lambda: F32) -> None:
    """Mark where |w d| > lambda |D - w d|, for each model's delta d and the multi-task delta D (TALL-masks).

    Args:
        packed: (k, ceil(n / 8)) uint8, written: one bit per entry.
        stack: (k, n) float32.
        merged: (n,) float32: the multi-task delta.
        weight: (k,) float32.
        tall_lambda: (k,) float32.
    """
    marks = scratch(_BLOCK, np.uint8)
    for begin in range(0, stack.shape[1], _BLOCK):
        size = min(_BLOCK, stack.shape[1] - begin)
        marks[size:] = 0
        whole = merged[begin : begin + size]
        for model in range(stack.shape[0]):
            row, w, bound = stack[model, begin : begin + size], weight[model], tall_lambda[model]
            for i in range(size):
                own = w * row[i]
                marks[i] = np.uint8(abs(own) > bound * abs(whole[i] - own))
            _pack(marks, packed[model, begin // 8 : (begin + size + 7) // 8])


@kernel
def consensus(out: F32, stack: F32Rows, weight: F32, tall_lambda: F32, agreement: int, scale: float) -> None:
    """Keep the entries of a multi-task delta that enough models need, times `scale`; zero the others.

    Args:
        out: (n,) float32: the multi-task delta, changed.
        stack: (k, n) float32.
        weight: (k,) float32.
        tall_lambda: (k,) float32.
        agreement: Number of models that must need an entry.
        scale: Multiplies the result.
    """
    needed, factor = scratch(_BLOCK, np.int32), np.float32(scale)
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        needed[:] = 0
        for model in range(stack.shape[0]):
            row, w, bound = stack[model, begin : begin + _BLOCK], weight[model], tall_lambda[model]
            for i in range(part.size):
                own = w * row[i]
                needed[i] += np.int32(abs(own) > bound * abs(part[i] - own))
        for i in range(part.size):
            part[i] = factor * part[i] if needed[i] >= agreement else np.float32(0)
