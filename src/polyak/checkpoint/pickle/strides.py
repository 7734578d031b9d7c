"""Strided views of a file's bytes, delivered in row-major order with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import Bytes

WINDOW_NBYTES = 8 << 20  # maximum of the file in memory at a time
_FAR_NBYTES = 16 << 10  # reading through a gap of this size costs about as much as another read

ReadInto = Callable[[Bytes, int], None]  # out, offset in bytes


def is_row_major(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Test whether the elements are contiguous in the file, in row-major order."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


def reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """One past the last element that a view touches, counted from its first."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if math.prod(shape) else 0


def gather(
    read_into: ReadInto,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    start: int,
    stop: int,
    out: NDArray[Any],
) -> None:
    """Read elements [start, stop) of a view, in row-major order, into `out`.

    Args:
        read_into: Reads bytes of the file; offset 0 is the view's first element.
        shape: The view's shape.
        stride: Its strides in elements, not negative.
        start: First element.
        stop: One past the last.
        out: One-dimensional, with items of the elements' size.
    """
    done = 0
    for corner, extent in _boxes(shape, start, stop):
        count = math.prod(extent)
        first = sum(index * step for index, step in zip(corner, stride, strict=True))
        # Largest steps first, so that the file is read forwards.
        order = sorted(range(len(extent)), key=lambda axis: -stride[axis])
        target = out[done : done + count].reshape(extent).transpose(order)
        _gather_box(read_into, first, tuple(stride[axis] for axis in order), target)
        done += count


def _boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Split the row-major range [start, stop) into boxes, in order: each a corner and an extent."""
    if start >= stop:
        return
    if len(shape) == 1:
        yield (start,), (stop - start,)
        return
    row_numel = math.prod(shape[1:])
    first, last = -(-start // row_numel), stop // row_numel  # the whole rows
    if first > last:
        yield from _boxes_in_row(shape, last, start - last * row_numel, stop - last * row_numel)
        return
    yield from _boxes_in_row(shape, first - 1, start - (first - 1) * row_numel, row_numel)
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    yield from _boxes_in_row(shape, last, 0, stop - last * row_numel)


def _boxes_in_row(
    shape: tuple[int, ...], row: int, start: int, stop: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for corner, extent in _boxes(shape[1:], start, stop):
        yield (row, *corner), (1, *extent)


def _gather_box(read_into: ReadInto, first: int, stride: tuple[int, ...], target: NDArray[Any]) -> None:
    itemsize = target.itemsize
    span = reach(target.shape, stride)
    if target.ndim == 0 or span * itemsize <= _FAR_NBYTES or not _is_sparse(target, stride):
        if span * itemsize <= WINDOW_NBYTES:
            _gather_window(read_into, first, span, stride, target)
            return
        inner = reach(target.shape[1:], stride[1:])
        rows = max(1, (WINDOW_NBYTES // itemsize - inner) // max(1, stride[0]) + 1)
    else:
        rows = 1
    for row in range(0, target.shape[0], rows):
        part = target[row : row + rows]
        if len(part) == 1:
            _gather_box(read_into, first + row * stride[0], stride[1:], part[0, ...])
        else:
            _gather_box(read_into, first + row * stride[0], stride, part)


def _is_sparse(target: NDArray[Any], stride: tuple[int, ...]) -> bool:
    """Test whether the gaps between rows are so wide that each row is read by itself."""
    inner = reach(target.shape[1:], stride[1:])
    return (stride[0] - inner) * target.itemsize > _FAR_NBYTES


def _gather_window(read_into: ReadInto, first: int, span: int, stride: tuple[int, ...], target: NDArray[Any]) -> None:
    window = np.empty(span, target.dtype)
    read_into(window.view(np.uint8), first * target.itemsize)
    steps = tuple(step * target.itemsize for step in stride)
    target[...] = np.lib.stride_tricks.as_strided(window, target.shape, steps, writeable=False)
