"""Decode, merge and encode in one loop: from stored entries to stored entries, or to inner products, without tiles.

A chunk at a time is decoded, merged and encoded while it is in the first-level cache. One kernel is filled from a
template per kernel of a method and pair of dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

from ..checkpoint import DType
from ..native import F32, F64Planes, Kernel, Key, array_kind, declared_keys, filled, in_rows
from .convert import decoder, decoders, encoder, encoders
from .gram import TOGETHER, add_products, mirror

ROOM = 8192  # float32 entries that stay in the first-level cache beside the stored ones
_WIDTHS = (256, 2048)  # minimum and maximum chunk length
FINITE, NOT_STORABLE = -1, -2

Through = Callable[[Any, Any, Any, int, int, int, bool, bool, tuple[Any, ...]], int]
OfStored = Callable[[Any, Any, int, Any, bool], int]


def room_for(rows: int) -> int:
    """Length of the float32 buffer for merging so many rows."""
    return (rows + 1) * max(_WIDTHS[0], min(_WIDTHS[1], ROOM // (rows + 1) & ~63))


@cache
def through(step: Any, stored: DType, out: DType) -> Through | None:
    """Return a function that decodes stored rows, merges them by a kernel and encodes the result; None if tiles must.

    Its arguments, with the results of `_merge`:
        stored: (rows, bytes), C-contiguous: the models, and the base last if there is one.
        out: The merged entries as bytes.
        room: float32 buffer of the size that `room_for` gives.
        offset: Index in `stored` of the first entry.
        start: Index in the tensor of the first entry.
        models: Number of rows that are models.
        relative: True to subtract the base from them.
        adds: True to add it to the result.
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


def merging_variants(step: Kernel) -> Iterator[tuple[Kernel, Key]]:
    """The kernels that `through` fills for a step, one per pair of dtypes."""
    for (seen, decode), (written, encode) in product(decoders(), encoders()):
        made = filled(_merge, _decode=decode, _step=step, _encode=encode)
        for head in declared_keys(_merge, stored=array_kind(seen, 2), out=array_kind(written, 1)):
            yield from ((made, head + key[3:]) for key in step.keys)


@cache
def products(stored: DType) -> OfStored | None:
    """Return a function that decodes stored rows and writes their inner products per block; None if tiles must.

    Its arguments, with the results of `_products`:
        stored: (rows, bytes), C-contiguous: the models, and the base last if there is one.
        out: (blocks, models, models) float64: what `inner_products` would write for each block.
        block: Entries per block.
        room: float32 buffer, TOGETHER entries per row.
        relative: True to subtract the base.
    """
    reading = decoder(stored)
    if reading is None:
        return None
    made = filled(_products, _decode=reading[1])
    return lambda rows, out, block, room, relative: int(made(rows.view(reading[0]), out, block, room, relative))


def product_variants() -> Iterator[tuple[Kernel, Key]]:
    """The kernels that `products` fills, one per dtype."""
    for seen, decode in decoders():
        made = filled(_products, _decode=decode)
        yield from ((made, key) for key in declared_keys(_products, stored=array_kind(seen, 2)))


# What the templates below call, until they are filled.
def _decode(stored: Any, offset: int, out: Any, relative: Any) -> int: ...
def _step(out: Any, stack: Any, start: int, *args: Any) -> None: ...
def _encode(tile: Any, out: Any) -> Any: ...


def _merge(
    stored: Any, out: Any, room: F32, offset: int, start: int, models: int, relative: bool, adds: bool, *args: Any
) -> int:
    """Returns the first row that holds NaN or infinity, FINITE, or NOT_STORABLE where the result is not finite."""
    rows = stored.shape[0]
    width = room.size // (rows + 1)
    # Per chunk, in `room`: the rows decoded (rows, size), then the merged entries (size,).
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


def _products(stored: Any, out: F64Planes, block: int, room: F32, relative: bool) -> int:
    """Returns the first row that holds NaN or infinity, or FINITE."""
    rows = stored.shape[0]
    for b in range(out.shape[0]):
        sums, stop = out[b], min((b + 1) * block, stored.shape[1])
        sums[:] = 0.0
        for begin in range(b * block, stop, TOGETHER):
            size = min(TOGETHER, stop - begin)
            bad = _decode(stored, begin, in_rows(room, rows, size), relative)
            if bad >= 0:
                return bad
            add_products(in_rows(room, sums.shape[0], size), 0, size, sums)
        mirror(sums)
    return FINITE
