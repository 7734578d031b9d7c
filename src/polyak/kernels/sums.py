"""Sums over stored entries, decoded a chunk at a time, and the kernels that add them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from ..checkpoint import DType
from ..native import (
    F32,
    F64,
    F32Rows,
    F64Rows,
    Kernel,
    Key,
    U32Rows,
    array_kind,
    declared_keys,
    filled,
    in_rows,
    kernel,
    scratch,
)
from ._lanes import LANES, total
from .convert import decoder, decoders
from .fused_pipeline import FINITE
from .philox import TOGETHER, uniform
from .sign_election import unify_part
from .variance import keep_varying, variances_of_part

WIDTH = 1024  # entries per decoded chunk; a multiple of LANES
OfStored = Callable[[Any, Any, int, Any, Any, int, bool, tuple[Any, ...]], int]


@cache
def sums(step: Any, stored: DType) -> OfStored | None:
    """Return a function that decodes stored rows and sums by a kernel, per block; None if tiles must.

    It returns the first row that holds NaN or infinity, or FINITE. Its arguments:
        stored: (rows, bytes), C-contiguous: the models, and the base last if there is one.
        out: (blocks, terms) float64, written.
        block: Entries per block.
        room: float32 buffer, WIDTH entries per row.
        lanes: (terms, LANES) float64, overwritten.
        start: Index in the tensor of the first entry.
        relative: True to subtract the base.
        args: More arguments of the kernel.
    """
    reading = decoder(stored)
    if reading is None:
        return None
    made = filled(_sums, _decode=reading[1], _step=step)

    def run(
        rows: Any, out: Any, block: int, room: Any, lanes: Any, start: int, relative: bool, args: tuple[Any, ...]
    ) -> int:
        return int(made(rows.view(reading[0]), out, block, room, lanes, start, relative, *args))

    return run


def sum_variants(step: Kernel) -> Iterator[tuple[Kernel, Key]]:
    """The kernels that `sums` fills for a step, one per dtype."""
    for seen, decode in decoders():
        made = filled(_sums, _decode=decode, _step=step)
        for head in declared_keys(_sums, stored=array_kind(seen, 2)):
            yield from ((made, head + key[3:]) for key in step.keys)


# What the template below calls, until it is filled.
def _decode(stored: Any, offset: int, out: Any, relative: Any) -> int: ...
def _step(lanes: Any, stack: Any, start: int, *args: Any) -> None: ...


def _sums(
    stored: Any, out: F64Rows, block: int, room: F32, lanes: F64Rows, start: int, relative: bool, *args: Any
) -> int:
    """Returns the first row that holds NaN or infinity, or FINITE."""
    rows = stored.shape[0]
    models = rows - 1 if relative else rows
    for b in range(out.shape[0]):
        stop = min((b + 1) * block, stored.shape[1])
        lanes[:] = 0.0
        for begin in range(b * block, stop, WIDTH):
            size = min(WIDTH, stop - begin)
            bad = _decode(stored, begin, in_rows(room, rows, size), relative)
            if bad >= 0:
                return bad
            _step(lanes, in_rows(room, models, size), start + begin, *args)
        for term in range(out.shape[1]):
            out[b, term] = total(lanes[term])
    return FINITE


@kernel
def add_up(lanes: F64Rows, out: F64) -> None:
    """Write the sums (terms,) of lanes (terms, LANES), which are overwritten."""
    for term in range(out.size):
        out[term] = total(lanes[term])


@kernel
def sizes_when_dropped(lanes: F64Rows, stack: F32Rows, start: int, keys: U32Rows, density: F32) -> None:
    """L1 norms of each model, then of what random dropping leaves of it: the kernel of a `SumCall`.

    Args:
        lanes: (2 k, LANES) float64, added to.
        stack: (k, n) float32.
        start: Index in the tensor of the first entry.
        keys: (k, 2) uint32, of the random numbers.
        density: (k,) float32.
    """
    k, units = stack.shape[0], scratch(TOGETHER, np.float32)
    for model in range(k):
        before, after, keep = lanes[model], lanes[k + model], density[model]
        units[:] = np.float32(0)
        for begin in range(0, stack.shape[1], TOGETHER):
            part = stack[model, begin : begin + TOGETHER]
            if keep < 1:
                uniform(units[: part.size], keys[model], start + begin)
            for at in range(0, part.size, LANES):
                some, drawn = part[at : at + LANES], units[at : at + LANES]
                for i in range(some.size):
                    size = np.float64(abs(some[i]))
                    before[i] += size
                    after[i] += size if drawn[i] < keep else 0.0


@kernel
def sizes_when_unified(lanes: F64Rows, stack: F32Rows, start: int, scale: float) -> None:
    """L1 norms of each model, then of the unified delta where the model has its sign; (2 k, LANES) lanes."""
    k, zero = stack.shape[0], np.float32(0)
    merged, sign = scratch(WIDTH, np.float32), scratch(WIDTH, np.float32)
    for begin in range(0, stack.shape[1], WIDTH):
        unified = merged[: min(WIDTH, stack.shape[1] - begin)]
        unify_part(unified, stack, begin, sign, np.float32(scale))
        for model in range(k):
            before, after = lanes[model], lanes[k + model]
            for at in range(0, unified.size, LANES):
                row, whole = stack[model, begin + at : begin + at + LANES], unified[at : at + LANES]
                for i in range(whole.size):
                    agrees = np.uint8((row[i] > zero) & (whole[i] > zero)) | np.uint8(
                        (row[i] < zero) & (whole[i] < zero)
                    )
                    before[i] += np.float64(abs(row[i]))
                    after[i] += np.float64(abs(whole[i]) if agrees != 0 else zero)


@kernel
def count_varying(lanes: F64Rows, stack: F32Rows, start: int) -> None:
    """Number of entries whose variance is not zero; (1, LANES) lanes."""
    mean, variance = scratch(WIDTH, np.float32), scratch(WIDTH, np.float32)
    for begin in range(0, stack.shape[1], WIDTH):
        part, counts = variance[: min(WIDTH, stack.shape[1] - begin)], lanes[0]
        variances_of_part(part, stack, begin, mean)
        for at in range(0, part.size, LANES):
            some = part[at : at + LANES]
            for i in range(some.size):
                counts[i] += 1.0 if some[i] > np.float32(0) else 0.0


@kernel
def squares_of_varying(lanes: F64Rows, stack: F32Rows, start: int, selects: bool, value: np.float32, last: int) -> None:
    """Squared norms of the entries that `keep_varying` keeps, per model, and the number of entries; k + 1 lanes."""
    if selects:
        keep_varying(stack, start, value, last)
    for model in range(stack.shape[0]):
        squares = lanes[model]
        for begin in range(0, stack.shape[1], LANES):
            row = stack[model, begin : begin + LANES]
            for i in range(row.size):
                squares[i] += np.float64(row[i]) * np.float64(row[i])
    lanes[stack.shape[0], 0] += np.float64(stack.shape[1])
