"""Breadcrumbs: keep the magnitudes between two thresholds per row, and merge them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F32Rows, I64Rows, kernel
from .sign_election import elect
from .weighted_sums import weighted_sum


@kernel
def keep_between(
    stack: F32Rows,
    start: int,
    value: F32Rows,
    last: I64Rows,
    high_value: F32Rows,
    high_last: I64Rows,
    row: int,
    factor: F32,
) -> None:
    """Keep the entries between a low and a high threshold, times the factor of their model; zero the others.

    Args:
        stack: (k, n) float32, changed.
        start: Index in the tensor of the first entry.
        value: (k, rows) float32, low thresholds: smaller magnitudes are zeroed,
        last: (k, rows) int64, index in the tensor of the last entry equal to `value` that is kept.
        high_value: (k, rows) float32, high thresholds: larger magnitudes are zeroed,
        high_last: (k, rows) int64, index of the last entry equal to `high_value` that is zeroed.
        row: Entries per row of the tensor.
        factor: (k,) float32.
    """
    for model in range(stack.shape[0]):
        # The rows of the tensor that the tile overlaps; [begin, end) is the part of row r inside the tile.
        for r in range(start // row, (start + stack.shape[1] + row - 1) // row):
            begin, end = max(r * row - start, 0), min((r + 1) * row - start, stack.shape[1])
            low_end, high_end = last[model, r] - start - begin, high_last[model, r] - start - begin
            _keep_between(
                stack[model, begin:end],
                value[model, r],
                np.int32(min(max(low_end, -1), end - begin)),
                high_value[model, r],
                np.int32(min(max(high_end, -1), end - begin)),
                factor[model],
            )


@kernel
def _keep_between(part: Any, value: Any, last: Any, high_value: Any, high_last: Any, factor: Any) -> None:
    zero = np.float32(0)
    for i in range(part.size):
        magnitude = abs(part[i])
        kept = magnitude > value or (magnitude == value and np.int32(i) <= last)
        is_outlier = magnitude > high_value or (magnitude == high_value and np.int32(i) <= high_last)
        part[i] = part[i] * factor if kept and not is_outlier else zero


@kernel
def between_and_add(
    out: F32,
    stack: F32Rows,
    start: int,
    value: F32Rows,
    last: I64Rows,
    high_value: F32Rows,
    high_last: I64Rows,
    row: int,
    factor: F32,
    weight: F32,
    scale: float,
) -> None:
    """`keep_between`, then `weighted_sum`: the kernel of a `KernelCall`."""
    keep_between(stack, start, value, last, high_value, high_last, row, factor)
    weighted_sum(out, stack, weight, scale)


@kernel
def between_and_elect(
    out: F32,
    stack: F32Rows,
    start: int,
    value: F32Rows,
    last: I64Rows,
    high_value: F32Rows,
    high_last: I64Rows,
    row: int,
    factor: F32,
    weight: F32,
    function: int,
    tie: float,
    scale: float,
) -> None:
    """`keep_between`, then `elect`: the kernel of a `KernelCall`."""
    keep_between(stack, start, value, last, high_value, high_last, row, factor)
    elect(out, stack, weight, weight, function, tie, scale)
