"""Variance of the models per entry, and the merge of the entries with the largest (SCE)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F32Rows, kernel, scratch
from .sign_election import MEAN, elect

_BLOCK = 1024


@kernel
def variances(out: F32, stack: F32Rows) -> None:
    """Write the variance of the models per entry, with NumPy's rounding: mean first, then squares.

    Args:
        out: (n,) float32, written.
        stack: (k, n) float32.
    """
    mean = scratch(_BLOCK, np.float32)
    for begin in range(0, out.size, _BLOCK):
        variances_of_part(out[begin : begin + _BLOCK], stack, begin, mean)


@kernel
def variances_of_part(part: Any, stack: Any, begin: int, mean: Any) -> None:
    """`variances` for the entries from `begin` on; `mean` is overwritten."""
    k, size = np.float32(stack.shape[0]), part.size
    first = stack[0, begin : begin + size]
    for i in range(size):
        mean[i] = first[i]
    for model in range(1, stack.shape[0]):
        row = stack[model, begin : begin + size]
        for i in range(size):
            mean[i] += row[i]
    for i in range(size):
        mean[i] /= k
        part[i] = (first[i] - mean[i]) * (first[i] - mean[i])
    for model in range(1, stack.shape[0]):
        row = stack[model, begin : begin + size]
        for i in range(size):
            part[i] += (row[i] - mean[i]) * (row[i] - mean[i])
    for i in range(size):
        part[i] /= k


@kernel
def keep_varying(stack: F32Rows, start: int, value: np.float32, last: int) -> None:
    """Zero the entries whose variance is below a threshold, or zero.

    Args:
        stack: (k, n) float32, changed.
        start: Index in the tensor of the first entry.
        value: float32, the threshold.
        last: Index in the tensor of the last entry equal to the threshold that is kept.
    """
    mean, variance = scratch(_BLOCK, np.float32), scratch(_BLOCK, np.float32)
    zero = np.float32(0)
    for begin in range(0, stack.shape[1], _BLOCK):
        part = variance[: min(_BLOCK, stack.shape[1] - begin)]
        variances_of_part(part, stack, begin, mean)
        behind = np.int32(min(max(last - start - begin, -1), part.size))
        for i in range(part.size):
            inside = part[i] > value or (part[i] == value and np.int32(i) <= behind)
            part[i] = part[i] if inside else zero
        for model in range(stack.shape[0]):
            row = stack[model, begin : begin + _BLOCK]
            for i in range(row.size):
                row[i] = row[i] if part[i] > zero else zero


@kernel
def select_and_elect(
    out: F32,
    stack: F32Rows,
    start: int,
    selects: bool,
    value: np.float32,
    last: int,
    weight: F32,
    ballot: F32,
    tie: float,
    scale: float,
) -> None:
    """`keep_varying`, if `selects`, then `elect`: the kernel of a `KernelCall`."""
    if selects:
        keep_varying(stack, start, value, last)
    elect(out, stack, weight, ballot, MEAN, tie, scale)
