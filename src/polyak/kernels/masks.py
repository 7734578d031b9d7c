"""Masks and shares of a tile: which entries of a merged delta belong to which model, and how much of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import kernel

_BLOCK = 1024


@kernel
def masked_magnitudes(stack: Any, unified: Any) -> Any:
    """Sum |unified| over the entries where each model has its sign, in float64: (k,).

    Args:
        stack: (k, n) float32.
        unified: (n,) float32.
    """
    sums = np.zeros(stack.shape[0], np.float64)
    part = np.empty(_BLOCK, np.float64)
    for model in range(stack.shape[0]):
        for begin in range(0, unified.size, _BLOCK):
            row, merged = stack[model, begin : begin + _BLOCK], unified[begin : begin + _BLOCK]
            for i in range(merged.size):
                agrees = (row[i] > 0 and merged[i] > 0) or (row[i] < 0 and merged[i] < 0)
                part[i] = np.float64(abs(merged[i])) if agrees else 0.0
            sums[model] += part[: merged.size].sum()
    return sums


@kernel
def consensus(out: Any, stack: Any, weight: Any, tall_lambda: Any, agreement: int, scale: Any) -> None:
    """Keep the entries of a multi-task delta that enough models need, times `scale`; zero the others.

    Args:
        out: (n,) float32: the multi-task delta, changed.
        stack: (k, n) float32.
        weight: (k,) float32.
        tall_lambda: (k,) float32.
        agreement: How many models must need an entry.
        scale: A number.
    """
    needed, factor = np.empty(_BLOCK, np.int32), np.float32(scale)
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


@kernel
def balanced(out: Any, stack: Any, share: Any, weight: Any, low: Any, high: Any, scale: Any) -> None:
    """Write scale * sum_i share_i weight_i c_i / max(sum_i share_i, 1e-12), c_i with magnitudes from low_i to high_i.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        share: (k, n) float32.
        weight: (k,) float32.
        low: (k,) float32.
        high: (k,) float32.
        scale: A number.
    """
    zero, total, factor = np.float32(0), np.empty(_BLOCK, np.float32), np.float32(scale)
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        part[:] = zero
        total[:] = zero
        for model in range(stack.shape[0]):
            row, part_of = stack[model, begin : begin + _BLOCK], share[model, begin : begin + _BLOCK]
            w, least, most = weight[model], low[model], high[model]
            for i in range(part.size):
                size = min(max(abs(row[i]), least), most)
                signed = size if row[i] > zero else (-size if row[i] < zero else zero)
                part[i] += part_of[i] * w * signed
                total[i] += part_of[i]
        for i in range(part.size):
            part[i] = factor * part[i] / max(total[i], np.float32(1e-12))
