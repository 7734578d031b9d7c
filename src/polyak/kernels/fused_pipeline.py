"""From stored numbers to stored numbers, or to their products, without a tile in between.

The numbers are widened, merged and rounded some at a time, while they are in the first-level cache. What does that is
made for each kernel of a method and for the dtypes that are read and written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..checkpoint import DType
from ._compile import filled, in_rows
from .convert import decoder, encoder
from .gram import TOGETHER, add_products, mirror

ROOM = 8192  # float32 numbers that stay in the first-level cache beside the stored ones
_WIDTHS = (256, 2048)  # the fewest and the most entries at a time
FINITE, NOT_STORABLE = -1, -2

Through = Callable[[Any, Any, Any, int, int, int, bool, bool, tuple[Any, ...]], int]
OfStored = Callable[[Any, Any, int, Any, bool], int]


def room_for(rows: int) -> int:
    """How many float32 numbers are needed at hand to merge so many rows."""
    return (rows + 1) * max(_WIDTHS[0], min(_WIDTHS[1], ROOM // (rows + 1) & ~63))


@cache
def through(step: Any, stored: DType, out: DType) -> Through | None:
    """What reads numbers of one dtype, merges them by a kernel and writes another dtype; None if that must go by tiles.

    It takes, with the results of `_merge`:
        stored: (rows, bytes), C-contiguous: the models, and the base last if there is one.
        out: As many elements as are merged, as bytes.
        room: float32 numbers, as `room_for` says.
        offset: Index in `stored` of the first entry.
        start: Index in the tensor of the first entry.
        models: How many rows are models.
        relative: Whether the base is subtracted from them.
        adds: Whether it is added to the result.
        args: More arguments of the kernel.
    """
    reading, writing = decoder(stored), encoder(out)
    if reading is None or writing is None:
        return None
    made = filled(_merge, _decode=reading[1], _step=step, _encode=writing[1])

    def run(
        rows: Any,
        to: Any,
        room: Any,
        offset: int,
        start: int,
        models: int,
        relative: bool,
        adds: bool,
        args: tuple[Any, ...],
    ) -> int:
        return int(made(rows.view(reading[0]), to.view(writing[0]), room, offset, start, models, relative, adds, *args))

    return run


@cache
def products(stored: DType) -> OfStored | None:
    """What reads numbers of a dtype and writes inner products, block by block; None if that must go by tiles.

    It takes, with the results of `_products`:
        stored: (rows, bytes), C-contiguous: the models, and the base last if there is one.
        out: (blocks, models, models) float64: what `inner_products` would write for each block.
        block: Entries of a block.
        room: float32 numbers, TOGETHER a row.
        relative: Whether the base is subtracted.
    """
    reading = decoder(stored)
    if reading is None:
        return None
    made = filled(_products, _decode=reading[1])
    return lambda rows, out, block, room, relative: int(made(rows.view(reading[0]), out, block, room, relative))


# What the templates below call, until they are filled.
def _decode(stored: Any, offset: int, out: Any, relative: Any) -> int: ...
def _step(out: Any, stack: Any, start: int, *args: Any) -> None: ...
def _encode(tile: Any, out: Any) -> Any: ...


def _merge(
    stored: Any, out: Any, room: Any, offset: int, start: int, models: int, relative: bool, adds: bool, *args: Any
) -> int:
    """The first row that holds NaN or infinity, FINITE, or NOT_STORABLE where the result is not finite."""
    rows = stored.shape[0]
    width = room.size // (rows + 1)
    for begin in range(0, out.size, width):
        size = min(width, out.size - begin)
        bad = _decode(stored, offset + begin, in_rows(room, rows, size), relative)
        if bad >= 0:
            return bad
        merged = room[rows * size : (rows + 1) * size]
        _step(merged, in_rows(room, models, size), start + begin, *args)
        if adds:
            base = room[models * size : rows * size]
            for i in range(size):
                merged[i] += base[i]
        if not _encode(merged, out[begin : begin + size]):
            return NOT_STORABLE
    return FINITE


def _products(stored: Any, out: Any, block: int, room: Any, relative: bool) -> int:
    """The first row that holds NaN or infinity, or FINITE."""
    rows = stored.shape[0]
    for b in range(out.shape[0]):
        found, stop = out[b], min((b + 1) * block, stored.shape[1])
        found[:] = 0.0
        for begin in range(b * block, stop, TOGETHER):
            size = min(TOGETHER, stop - begin)
            bad = _decode(stored, begin, in_rows(room, rows, size), relative)
            if bad >= 0:
                return bad
            add_products(in_rows(room, found.shape[0], size), 0, size, found)
        mirror(found)
    return FINITE
