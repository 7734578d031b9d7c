"""Read the sources of a step as float32: many bytes at a time, a tile of numbers at a time.

Reads are large, because every call into the system or a kernel hands Python's lock to another worker and back;
tiles are small, because their numbers should stay in cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Bytes
from ...errors import NotFinite, Remedy
from ...kernels.convert import decode_rows
from ...methods import Role
from ...planning import Read, Step
from .. import tuning
from .buffers import Buffers, Tap, Tile
from .statistic_inputs import measured

_SHIFTS = {"BF16": 16, "F32": 0}


def tile_length(step: Step, entries: int | None = None) -> int:
    """Tile size in entries: as many as the cache holds for all sources.

    It is a multiple of what must be merged together. `entries` are taken instead of the cache's, if given.
    """
    most = entries or max(8 * 1024, min(tuning.TILE, tuning.TILE_NBYTES // (4 * (len(step.reads) + 2)) & ~1023))
    return max(most // step.unit, 1) * step.unit


@dataclass
class Loaded:
    """The inputs of a method for a range of entries, in the spaces that it asks for.

    Attributes:
        tensors: (k, n), if asked for.
        deltas: (k, n), if asked for; the tensors themselves where there is no base.
        base: (n,), if there is one.
        statistics: The statistics that were asked for, by parameter: (k, n) or, for Grams, (k, d, d).
    """

    tensors: Tile | None
    deltas: Tile | None
    base: Tile | None
    statistics: Mapping[str, Tile] = field(default_factory=dict[str, Tile])

    def shaped(self, shape: tuple[int, ...]) -> Loaded:
        """The same with entries in another shape, in the same memory."""
        return Loaded(
            None if self.tensors is None else self.tensors.reshape(len(self.tensors), *shape),
            None if self.deltas is None else self.deltas.reshape(len(self.deltas), *shape),
            None if self.base is None else self.base.reshape(shape),
            self.statistics,
        )


class Sources:
    """The sources of a step for a chunk of its entries, to be loaded from front to back.

    Args:
        step: The step.
        stop: One past the last entry of the chunk.
        buffers: Buffers; what is loaded lives in them until the next load.
        want: The stacks needed: tensors, deltas, base.
        tap: Sees the bytes as they come, once each, to hash them.
        statistics: The statistics needed, by parameter.
        tapped: The entries that it sees (default: all).
        tile: Entries loaded at a time; otherwise some may be read twice.
        read_nbytes: Bytes to read at a time, of all sources together (default: `tuning.READ_NBYTES`).
    """

    def __init__(
        self,
        step: Step,
        stop: int,
        buffers: Buffers,
        want: frozenset[Role],
        tap: Tap | None = None,
        statistics: Collection[str] = (),
        tapped: tuple[int, int] | None = None,
        tile: int | None = None,
        read_nbytes: int | None = None,
    ) -> None:
        self._reads, self._has_base = step.own_reads, step.base is not None
        self._measured = {key: rows for key, rows in measured(step, stop, buffers, tap).items() if key in statistics}
        self._is_needed = bool(want) or not statistics
        self._stop, self._buffers, self._tap, self._tapped = stop, buffers, tap, tapped or (0, stop)
        self._without_base = Role.DELTAS in want and not self._has_base
        self._relative = Role.DELTAS in want and self._has_base
        self._keeps_tensors = self._relative and Role.TENSORS in want
        self._dtypes = {read.spec.dtype for read in self._reads}
        self._itemsize = max(dtype.itemsize for dtype in self._dtypes)
        self._read_length = self._whole_tiles(read_nbytes or tuning.READ_NBYTES, tile or tuning.TILE)
        self._raw: Bytes = np.empty((0, 0), np.uint8)
        self._begin = self._end = 0
        if tap is None:
            self._take_kept(step)

    def _whole_tiles(self, nbytes: int, tile: int) -> int:
        """Entries per read: a tile that crosses the end of a read would be read, and hashed, again."""
        return max(nbytes // (self._itemsize * len(self._reads)) // tile, 1) * tile

    def _take_kept(self, step: Step) -> None:
        """Use rows that are in memory already instead of reading."""
        if (rows := self._buffers.rows(step)) is not None:
            self._raw, self._begin, self._end = rows, 0, step.out.numel

    def load(self, start: int, stop: int) -> Loaded:
        """Read entries [start, stop) of every source.

        Raises:
            NotFinite: a source holds NaN or infinity.
        """
        statistics = {key: rows.load(start, stop) for key, rows in self._measured.items()}
        loaded = self._load(start, stop) if self._is_needed else Loaded(None, None, None)
        return replace(loaded, statistics=statistics) if statistics else loaded

    def _load(self, start: int, stop: int) -> Loaded:
        if not self._begin <= start <= stop <= self._end:
            self._fill(start, max(stop, min(start + self._read_length, self._stop)))
        rows = self._buffers.floats("rows", len(self._reads), stop - start)
        relative = self._relative and not self._keeps_tensors
        self._widen(start, rows, relative=relative)
        if not self._has_base:
            return Loaded(rows, rows if self._without_base else None, None)
        stack, base = rows[:-1], rows[-1]
        if not self._keeps_tensors:
            return Loaded(None, stack, base) if relative else Loaded(stack, None, base)
        deltas = self._buffers.floats("deltas", *stack.shape)
        np.subtract(stack, base, out=deltas)
        return Loaded(stack, deltas, base)

    @property
    def shift(self) -> int | None:
        """By how many bits the stored numbers are shifted to be float32, if that is all it takes for every source."""
        return _SHIFTS.get(next(iter(self._dtypes)).name) if len(self._dtypes) == 1 else None

    def stored_tiles(self, start: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """The stored numbers of all sources from `start` on, read by read: first entry, (sources, n) integers."""
        if self._begin <= start and self._stop <= self._end:
            yield start, self._raw.view(f"u{self._itemsize}")[:, start - self._begin : self._stop - self._begin]
            return
        for begin in range(start, self._stop, self._read_length):
            self._fill(begin, min(begin + self._read_length, self._stop))
            yield begin, self._raw.view(f"u{self._itemsize}")

    def refuse(self, number: int) -> NoReturn:
        """Name the number of a source that is not finite, among those read last."""
        self._refuse(number, self._begin, 0, self._end - self._begin)

    def _fill(self, start: int, stop: int) -> None:
        """Read entries [start, stop): a row of bytes for each source."""
        self._make_room(start, stop)
        for i, read in enumerate(self._reads):
            row = self._raw[i, : (stop - start) * read.spec.dtype.itemsize]
            read.checkpoint.read_into(read.spec.name, start, stop, row)
            self._buffers.nbytes_read += row.size
            if self._tap is not None:
                first, last = max(start, self._tapped[0]) - start, min(stop, self._tapped[1]) - start
                self._tap(i, row[first * read.spec.dtype.itemsize : max(last, first) * read.spec.dtype.itemsize])

    def _make_room(self, start: int, stop: int) -> None:
        width = (stop - start) * self._itemsize
        self._raw = self._buffers.bytes("stored", width * len(self._reads)).reshape(len(self._reads), width)
        self._begin, self._end = start, stop

    def _widen(self, start: int, rows: Tile, *, relative: bool) -> None:
        offset = start - self._begin
        if len(self._dtypes) == 1:
            bad = decode_rows(self._raw, self._reads[0].spec.dtype, offset, rows, relative=relative)
            if bad >= 0:
                self._refuse(bad, start, offset, rows.shape[1])
            return
        for i, read in enumerate(self._reads):
            size = read.spec.dtype.itemsize
            part = self._raw[i : i + 1, : (self._end - self._begin) * size]
            if decode_rows(part, read.spec.dtype, offset, rows[i : i + 1], relative=False) >= 0:
                self._refuse(i, start, offset, rows.shape[1])
        if relative:
            rows[:-1] -= rows[-1]

    def _refuse(self, number: int, start: int, offset: int, n: int) -> NoReturn:
        read = self._reads[number]
        size = read.spec.dtype.itemsize
        raw = self._raw[number, offset * size : (offset + n) * size]
        raise NotFinite(_what_is_not_finite(read, start, raw), remedies=[Remedy.FINITE])


def load(step: Step, start: int, stop: int, buffers: Buffers, want: frozenset[Role]) -> Loaded:
    """Read entries [start, stop) of every source of a step, once."""
    return Sources(step, stop, buffers, want).load(start, stop)


def _what_is_not_finite(read: Read, start: int, raw: Bytes) -> str:
    with np.errstate(over="ignore"):
        values = raw.view(read.spec.dtype.numpy).astype(np.float32)
    at = int(np.flatnonzero(~np.isfinite(values))[0])
    index = [int(i) for i in np.unravel_index(start + at, read.spec.shape or (1,))]
    return (
        f"{read.spec.name!r} of {read.model} ({read.checkpoint.label}) holds {float(values[at])!r} at {index}. "
        "Merging would spread it."
    )
