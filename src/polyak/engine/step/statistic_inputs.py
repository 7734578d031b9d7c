"""Read the statistics of a step: many of the models' numbers at a time, or whole Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Bytes
from ...errors import CheckpointError, NotFinite
from ...methods import Stat
from ...planning import Read, Step
from .. import tuning
from .buffers import Buffers, Tap, Tile


def measured(step: Step, stop: int, buffers: Buffers, tap: Tap | None) -> dict[str, Rows]:
    """The statistics of a step up to entry `stop`, by the method's parameter; they are read when they are loaded."""
    rows: dict[str, Rows] = {}
    first = len(step.own_reads)
    for key, reads in step.statistics.items():
        assert step.method is not None
        rows[key] = Rows(key, step.method.statistics[key], reads, stop, buffers, tap, first)
        first += len(reads)
    return rows


class Rows:
    """One statistic of every model of a step, to be loaded from front to back.

    Args:
        key: The method's parameter; names the buffers.
        stat: Its declaration.
        reads: One per model.
        stop: One past the last entry that will be requested.
        buffers: Buffers; what is loaded lives in them until the next load.
        tap: Sees the bytes as they come, once each, to hash them.
        first: The number of the first of `reads` among all that the step reads.
    """

    def __init__(
        self, key: str, stat: Stat, reads: Sequence[Read], stop: int, buffers: Buffers, tap: Tap | None, first: int
    ) -> None:
        self._key, self._stat, self._reads = key, stat, reads
        self._stop, self._buffers, self._tap, self._first = stop, buffers, tap, first
        self._read_length = max(tuning.READ_NBYTES // (4 * len(reads)), 1)
        self._rows: Tile = np.empty((0, 0), np.float32)
        self._begin = self._end = 0

    def load(self, start: int, stop: int) -> Tile:
        """Entries [start, stop) as (k, n), C-contiguous; Grams whole, as (k, d, d).

        Raises:
            NotFinite: a statistic holds NaN or infinity.
            CheckpointError: it holds numbers below zero where there can be none.
        """
        if self._stat.shape == "gram":
            self._fill(0, self._reads[0].spec.numel)
            return self._rows.reshape(-1, *self._reads[0].spec.shape)
        if not self._begin <= start <= stop <= self._end:
            self._fill(start, max(stop, min(start + self._read_length, self._stop)))
        out = self._buffers.floats(f"tile of {self._key}", len(self._reads), stop - start)
        out[:] = self._rows[:, start - self._begin : stop - self._begin]
        return out

    def _fill(self, start: int, stop: int) -> None:
        raw = self._buffers.bytes(f"stored {self._key}", 4 * (stop - start) * len(self._reads))
        raw = raw.reshape(len(self._reads), -1)
        self._begin, self._end = start, stop
        for i, read in enumerate(self._reads):
            read.checkpoint.read_into(read.spec.name, start, stop, raw[i])
            self._buffers.nbytes_read += raw[i].size
            if self._tap is not None:
                self._tap(self._first + i, raw[i])
            self._check(read, raw[i], start)
        self._rows = raw.view(np.float32)

    def _check(self, read: Read, raw: Bytes, start: int) -> None:
        values: NDArray[np.float32] = raw.view(np.float32)
        lowest = -np.inf if self._stat.signed else 0.0
        if not values.size or (np.isfinite(low := values.min()) and np.isfinite(values.max()) and low >= lowest):
            return
        finite = np.isfinite(values)
        at = int(np.flatnonzero(~finite | (values < lowest))[0])
        index = [int(i) for i in np.unravel_index(start + at, read.spec.shape or (1,))]
        raise (CheckpointError if finite[at] else NotFinite)(
            f"{read.spec.name!r} of the statistic {read.model} ({read.checkpoint.label}) holds {float(values[at])!r} "
            f"at {index}; it must be finite{'' if self._stat.signed else ' and at least 0'}. Measure it again."
        )
