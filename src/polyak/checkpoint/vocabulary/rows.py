"""Checkpoints whose embedding tables have other rows: their own in another order, or those of other checkpoints."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._api import F32, Bytes, Checkpoint, DType, Stamp, TensorSpec

RowNumbers: TypeAlias = NDArray[np.int64]
ZERO_ROW, MEAN_ROW, PADDING_ROW = -1, -2, -3
SPAN_NBYTES = 2**20  # rows within a range of this size are read together, with the rows between them
SPARSE = 4  # or if reading the whole range takes at most 4 times as many rows as are needed
BLOCK_NBYTES = 2**24  # rows that are averaged at a time


@dataclass(frozen=True)
class MeanRows:
    """Rows that are means of others: row `row[i]` of table `source[i]` is averaged into row `of[i]`."""

    of: RowNumbers = field(default_factory=lambda: np.zeros(0, np.int64))
    source: RowNumbers = field(default_factory=lambda: np.zeros(0, np.int64))
    row: RowNumbers = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class TokenRows:
    """Source of each row of an embedding table.

    Attributes:
        tables: The tables that rows are taken from: a checkpoint and a name there.
        source: For each row the index of its table, or ZERO_ROW, MEAN_ROW or PADDING_ROW; padding comes last.
        row: For each row its index in that table.
        means: The rows that are averaged for each MEAN_ROW.
    """

    tables: Sequence[tuple[Checkpoint, str]]
    source: RowNumbers
    row: RowNumbers
    means: MeanRows = field(default_factory=MeanRows)

    def __len__(self) -> int:
        return len(self.source)

    def over(self, swap: Callable[[Checkpoint], Checkpoint]) -> TokenRows:
        """The same rows of the checkpoints that `swap` returns; the object itself if it returns them unchanged."""
        tables = [(swap(checkpoint), name) for checkpoint, name in self.tables]
        same = all(new is old for (new, _), (old, _) in zip(tables, self.tables, strict=True))
        return self if same else replace(self, tables=tables)

    def dtype(self, own: DType) -> DType:
        """Dtype of the rows: `own` if all rows are stored in it and none is computed, else float32."""
        taken = {self.tables[i][0].spec(self.tables[i][1]).dtype for i in np.unique(self.source) if i >= 0}
        computed = bool(((self.source == MEAN_ROW) | (self.source == PADDING_ROW)).any())
        return own if taken <= {own} and not computed else F32


class AlignedCheckpoint(Checkpoint):
    """`inner` with some of its tables replaced; a table is a tensor with one row (or entry) per token."""

    def __init__(self, inner: Checkpoint, tables: Mapping[str, TokenRows], stamps: Sequence[Stamp] = ()) -> None:
        self.inner = self._inner = inner
        self.label, self.metadata, self.folder = inner.label, inner.metadata, inner.folder
        self.ties, self.stamps = inner.ties, (*inner.stamps, *stamps)
        self._tables = dict(tables)
        self._averages: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()
        self.specs = {name: _spec(spec, tables[name]) if name in tables else spec for name, spec in inner.specs.items()}

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        if name not in self._tables:
            self._inner.read_into(name, start, stop, out)
            return
        spec, width = self.specs[name], self._width(name)
        first, last = start // width, -(-stop // width)
        rows = self._gathered(name, first, last).reshape(-1)[start - first * width : stop - first * width]
        out.view(spec.dtype.numpy)[:] = rows

    def over(self, swap: Callable[[Checkpoint], Checkpoint]) -> Self:
        view = super().over(swap)
        tables = {name: rows.over(swap) for name, rows in self._tables.items()}
        if all(tables[name] is rows for name, rows in self._tables.items()):
            return view
        view = copy(self) if view is self else view
        view._tables = tables
        return view

    def close(self) -> None:
        self._inner.close()

    def _width(self, name: str) -> int:
        return max(self.specs[name].numel // max(len(self._tables[name]), 1), 1)

    def _gathered(self, name: str, first: int, last: int) -> NDArray[Any]:
        """Rows [first, last) in the dtype in which they are delivered."""
        rows, kind = self._tables[name], self.specs[name].dtype.numpy
        source, row = rows.source[first:last], rows.row[first:last]
        out: NDArray[Any] = np.zeros((last - first, self._width(name)), kind)
        for i in range(len(rows.tables)):
            if len(here := np.flatnonzero(source == i)):
                taken = _take(*rows.tables[i], row[here], out.shape[1])
                # Most rows usually come from the table itself: contiguous rows are copied by a slice, without indices.
                out[here if here[-1] - here[0] >= len(here) else slice(here[0], here[-1] + 1)] = taken
        if (source == MEAN_ROW).any():
            _add_means(rows, first, out, source)
        if (source == PADDING_ROW).any():
            out[source == PADDING_ROW] = self._average(name)
        return out

    def _average(self, name: str) -> NDArray[np.float32]:
        """The mean of all rows that are not padding."""
        with self._lock:
            if name not in self._averages:
                stop = int(np.argmax(self._tables[name].source == PADDING_ROW))
                total, width = np.zeros(self._width(name)), self._width(name)
                step = max(BLOCK_NBYTES // (4 * width), 1)
                for first in range(0, stop, step):
                    total += self._gathered(name, first, min(first + step, stop)).sum(0, dtype=np.float64)
                self._averages[name] = (total / max(stop, 1)).astype(np.float32)
            return self._averages[name]


def _spec(spec: TensorSpec, rows: TokenRows) -> TensorSpec:
    """The entry of a table with other rows; tokens are along the first axis, or the second if that has length one."""
    shape = (1, len(rows)) if len(spec.shape) == 2 and spec.shape[0] == 1 else (len(rows), *spec.shape[1:])
    dtype = rows.dtype(spec.dtype)
    return replace(spec, shape=shape, dtype=dtype, rests_as=spec.stored if dtype is not spec.dtype else spec.rests_as)


def _take(table: Checkpoint, name: str, rows: RowNumbers, width: int) -> NDArray[Any]:
    """Rows of a table in any order; nearby rows are read together."""
    spec = table.spec(name)
    low, span = int(rows.min()), int(rows.max() - rows.min()) + 1
    if span <= SPARSE * len(rows) or span * width * spec.dtype.itemsize <= SPAN_NBYTES:
        return _block(table, spec, low, low + span, width).take(rows - low, axis=0)
    order = np.argsort(rows, kind="stable")
    ranked = rows[order]
    near = max(SPAN_NBYTES // (64 * width * spec.dtype.itemsize), 1)
    out: NDArray[Any] = np.empty((len(rows), width), spec.dtype.numpy)
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(ranked) > near) + 1):
        first = int(ranked[part[0]])
        out[order[part]] = _block(table, spec, first, int(ranked[part[-1]]) + 1, width)[ranked[part] - first]
    return out


def _block(table: Checkpoint, spec: TensorSpec, first: int, stop: int, width: int) -> NDArray[Any]:
    data = np.empty((stop - first) * width * spec.dtype.itemsize, np.uint8)
    table.read_into(spec.name, first * width, stop * width, data)
    return data.view(spec.dtype.numpy).reshape(-1, width)


def _add_means(rows: TokenRows, first: int, out: NDArray[Any], source: RowNumbers) -> None:
    means = rows.means
    here = (means.of >= first) & (means.of < first + len(out))
    of = means.of[here] - first
    for i in np.unique(means.source[here]):
        mine = means.source[here] == i
        # No row has two members of one source, so that the indexed addition visits each row once.
        out[of[mine]] += _take(*rows.tables[int(i)], means.row[here][mine], out.shape[1]).astype(np.float32)
    counts = np.bincount(of, minlength=len(out))
    out[source == MEAN_ROW] /= counts[source == MEAN_ROW, None]
