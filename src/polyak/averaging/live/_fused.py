"""Updates of float32 weights on CPUs by compiled kernels, which read the weights once for all copies and for the check.

Other weights and copies are moved by `_arithmetic`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ...kernels.moving_averages import fold, take
from ...native import Kernel
from ._arithmetic import Tensors

if TYPE_CHECKING:
    from torch import Tensor

Amounts: TypeAlias = NDArray[np.float32]  # (steps, copies)
_ALONE = 1 << 20  # entries below which another thread costs more than it saves
_REVERSIBLE = 0.5  # largest amount whose move can be taken back to within rounding


def fits(columns: Sequence[Tensors]) -> bool:
    """True if the kernels can move copies towards weights: dense float32 tensors in main memory, of the same layout."""
    return _has_kernels() and all(_alike(tensors) for tensors in zip(*columns, strict=True))


def fold_all(steps: Sequence[Tensors], copies: Sequence[Tensors], amounts: Amounts, *, checks: bool) -> int | None:
    """Move copies towards the weights of one step after the other.

    If the last weights hold NaN or infinity, what has moved is moved back, to within rounding.

    Args:
        steps: The weights, by step.
        copies: The copies.
        amounts: One per step and copy.
        checks: Look for NaN and infinity in the last weights; the others were checked by `snapshot`.

    Returns:
        The index of the first tensor that is not finite; None if all are.
    """
    sizes = _sizes(steps[0])
    if checks and amounts.max() > _REVERSIBLE:  # an overwritten copy cannot be brought back: look before moving
        if (bad := _first_bad(steps[-1])) is not None:
            return bad
        checks = False
    table = _addresses([*steps, *copies])
    ends = _in_parts(sizes, lambda start, stop: int(fold(table, sizes, amounts, start, stop, checks)))
    if all(end == stop for _, stop, end in ends):
        return None
    backwards = np.ascontiguousarray(-amounts[::-1] / (1 - amounts[::-1]))
    reversed_table = _addresses([*reversed(steps), *copies])
    for start, _, end in ends:
        fold(reversed_table, sizes, backwards, start, end, False)
    return _tensor_at(sizes, min(end for _, stop, end in ends if end < stop))


def snapshot(weights: Tensors, copy: Tensors, *, checks: bool) -> int | None:
    """Copy weights; return the index of the first tensor that holds NaN or infinity, None if all are finite."""
    sizes, table = _sizes(weights), _addresses([weights, copy])
    ends = _in_parts(sizes, lambda start, stop: int(take(table, sizes, start, stop, checks)))
    bad = [end for _, stop, end in ends if end < stop]
    return _tensor_at(sizes, min(bad)) if bad else None


def _first_bad(weights: Tensors) -> int | None:
    """A fold into no copies only looks at the weights."""
    sizes, table, none = _sizes(weights), _addresses([weights]), np.zeros((1, 0), np.float32)
    ends = _in_parts(sizes, lambda start, stop: int(fold(table, sizes, none, start, stop, True)))
    bad = [end for _, stop, end in ends if end < stop]
    return _tensor_at(sizes, min(bad)) if bad else None


def _in_parts(sizes: NDArray[np.int64], work: Callable[[int, int], int]) -> list[tuple[int, int, int]]:
    """Let as many threads as torch uses work on equal parts of all entries: (start, stop, where it stopped) of each."""
    import torch

    total = int(sizes.sum())
    count = max(1, min(torch.get_num_threads(), total // _ALONE))
    bounds = [total * i // count for i in range(count + 1)]
    parts = list(pairwise(bounds))
    if count == 1:
        return [(0, total, work(0, total))]
    stopped = _threads(count).map(lambda part: work(*part), parts)
    return [(start, stop, end) for (start, stop), end in zip(parts, stopped, strict=True)]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="polyak-averages")


@cache
def _has_kernels() -> bool:
    return all(cast("Kernel", each).is_available for each in (fold, take))


def _alike(tensors: Sequence[Tensor]) -> bool:
    import torch

    first = tensors[0]
    dense = first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)
    return dense and all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.stride() == first.stride()
        for tensor in tensors
    )


def _addresses(columns: Sequence[Tensors]) -> NDArray[np.int64]:
    rows = [[tensor.data_ptr() for tensor in tensors] for tensors in zip(*columns, strict=True)]
    return np.array(rows, np.int64).reshape(len(rows), len(columns))


def _sizes(tensors: Tensors) -> NDArray[np.int64]:
    return np.array([tensor.numel() for tensor in tensors], np.int64)


def _tensor_at(sizes: NDArray[np.int64], entry: int) -> int:
    """The tensor that holds an entry, counted over all tensors."""
    return int(np.searchsorted(np.cumsum(sizes), entry, side="right"))
