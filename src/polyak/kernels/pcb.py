"""Parameter competition balancing: score the entries of a tile, and average them by their scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F32Planes, F32Rows, inlined, kernel, scratch
from .exp_tanh import exp, tanh

BLOCK = 1024
OFFICIAL, NORMALISED, PAIRWISE = 0, 1, 2
VARIANTS = {"official": OFFICIAL, "normalised": NORMALISED, "pairwise": PAIRWISE}


@inlined
def _width(low: Any, high: Any) -> Any:
    return high - low if high > low else np.float32(1)


@inlined
def _unit(number: Any, low: Any, high: Any, width: Any) -> Any:
    """A number clipped to [low, high] and mapped to [0, 1]."""
    return (min(max(number, low), high) - low) / width


@inlined
def _signed(size: Any, like: Any) -> Any:
    return size if like > 0 else (-size if like < 0 else np.float32(0))


@kernel
def scores(out: F32Rows, stack: F32Rows, low: F32, high: F32, variant: int, space: F32Planes) -> None:
    """Write exp(k (size^2 - 1)) times the agreement of each model with the others: PCB's beta, times exp(-k).

    Loops are short and have no branches on the variant: only then do they vectorise.

    Args:
        out: (k, n) float32, written.
        stack: (k, n) float32.
        low: (k,) float32: the magnitude that counts as 0.
        high: (k,) float32: the magnitude that counts as 1.
        variant: OFFICIAL, NORMALISED or PAIRWISE.
        space: (2, k, BLOCK) float32, overwritten.
    """
    k, sizes, normals = stack.shape[0], space[0], space[1]
    total = scratch(BLOCK, np.float32)
    for begin in range(0, stack.shape[1], BLOCK):
        end = min(begin + BLOCK, stack.shape[1])
        total[:] = np.float32(0)
        # First sweep over a block: normalised magnitudes (2, k, block) and their sum; second: the scores.
        for model in range(k):
            row = stack[model, begin:end]
            _size(sizes[model], normals[model], row, low[model], high[model])
            _add(total, row if variant == OFFICIAL else normals[model, : row.size])
        for model in range(k):
            target = out[model, begin:end]
            if variant == PAIRWISE:
                target[:] = np.float32(0)
                for other in range(k):
                    _add_tanh(target, normals[model], normals[other])
            else:
                _write_tanh(target, stack[model, begin:end], total)
            _amplify(target, sizes[model], np.float32(k))


@kernel
def _size(size: Any, normal: Any, row: Any, low: Any, high: Any) -> None:
    width = _width(low, high)
    for i in range(row.size):
        size[i] = _unit(abs(row[i]), low, high, width)
    for i in range(row.size):
        normal[i] = _signed(size[i], row[i])


@kernel
def _add(total: Any, row: Any) -> None:
    for i in range(row.size):
        total[i] += row[i]


@kernel
def _write_tanh(target: Any, row: Any, total: Any) -> None:
    for i in range(target.size):
        target[i] = tanh(row[i] * total[i])


@kernel
def _add_tanh(target: Any, own: Any, other: Any) -> None:
    for i in range(target.size):
        target[i] += tanh(own[i] * other[i])


@kernel
def _amplify(target: Any, size: Any, models: Any) -> None:
    for i in range(target.size):
        target[i] *= exp(models * (size[i] * size[i] - np.float32(1)))


@kernel
def balanced(
    out: F32, stack: F32Rows, score: F32Rows, weight: F32, low: F32, high: F32, first: F32, last: F32, scale: float
) -> None:
    """Write scale * sum_i s_i weight_i c_i / max(sum_i s_i, 1e-12): s_i from scores, c_i with clipped magnitudes.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
        score: (k, n) float32.
        weight: (k,) float32.
        low: (k,) float32: the smallest magnitude.
        high: (k,) float32: the largest magnitude.
        first: (k,) float32: the score that counts as 0.
        last: (k,) float32: the score that counts as 1.
        scale: Multiplies the result.
    """
    zero, total, factor = np.float32(0), scratch(BLOCK, np.float32), np.float32(scale)
    for begin in range(0, out.size, BLOCK):
        part = out[begin : begin + BLOCK]
        part[:] = zero
        total[:] = zero
        for model in range(stack.shape[0]):
            row, own = stack[model, begin : begin + BLOCK], score[model, begin : begin + BLOCK]
            w, least, most, start, stop = weight[model], low[model], high[model], first[model], last[model]
            width = _width(start, stop)
            for i in range(part.size):
                share = _unit(own[i], start, stop, width)
                clipped = _signed(min(max(abs(row[i]), least), most), row[i])
                part[i] += share * w * clipped
                total[i] += share
        for i in range(part.size):
            part[i] = factor * part[i] / max(total[i], np.float32(1e-12))
