"""Inputs that stay in memory from one merge to the next, as they are stored: all models' rows of a tensor together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...checkpoint import Bytes, Checkpoint, DType
from ...kernels.convert import decode_rows
from ...planning import Step

Key = tuple[tuple[int, str], ...]
Reader = Callable[[str, Bytes], None]  # reads a whole tensor
_TILE = 16 * 1024  # entries of each row that are looked at together


@dataclass
class _Block:
    """The rows of one step, once they have been read."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: Bytes | None = None


class InputCache:
    """Rows of bytes by step, within a budget.

    Args of the constructor:
        reader: Reader of a checkpoint; None if it may be another one at the next merge.
        take: Reserves bytes, and tells if there were enough; a negative number gives some back.
    """

    def __init__(self, reader: Callable[[Checkpoint], Reader | None], take: Callable[[int], bool]) -> None:
        self._reader, self.take = reader, take
        self._blocks: dict[Key, _Block] = {}
        self._finite: dict[int, bool] = {}  # by the rows' `id`: they stay
        self._lock = threading.Lock()

    def rows(self, step: Step) -> Bytes | None:
        """The stored bytes of the models, and of the base last: (sources, nbytes); None if they are not kept."""
        key = key_of(step)
        with self._lock:
            if key not in self._blocks:
                if not self._may_be_kept(step):
                    return None
                self._blocks[key] = _Block()
            block = self._blocks[key]
        with block.lock:
            if block.rows is None:
                block.rows = self._read(step)
            return block.rows

    def are_finite(self, rows: Bytes, dtype: DType) -> bool:
        """True if all cached rows are finite; checked once per row."""
        if id(rows) not in self._finite:
            self._finite[id(rows)] = _are_finite(rows, dtype)
        return self._finite[id(rows)]

    def _may_be_kept(self, step: Step) -> bool:
        reads = step.own_reads
        if step.kind != "merge" or not all(self._reader(read.checkpoint) for read in reads):
            return False
        alike = all(read.spec.dtype is reads[0].spec.dtype and read.spec.numel == step.out.numel for read in reads)
        return alike and self.take(len(reads) * reads[0].spec.nbytes)

    def _read(self, step: Step) -> Bytes:
        rows = np.empty((len(step.own_reads), step.reads[0].spec.nbytes), np.uint8)
        for read, row in zip(step.own_reads, rows, strict=True):
            reader = self._reader(read.checkpoint)
            assert reader is not None  # or the block would not be there
            reader(read.spec.name, row)
        return rows


def _are_finite(rows: Bytes, dtype: DType) -> bool:
    numel = rows.shape[1] // dtype.itemsize
    room = np.empty((len(rows), min(numel, _TILE)), np.float32)
    tiles = ((start, min(_TILE, numel - start)) for start in range(0, numel, _TILE))
    floats = ((start, room.reshape(-1)[: len(rows) * size].reshape(len(rows), size)) for start, size in tiles)
    return all(decode_rows(rows, dtype, start, wide, relative=False) < 0 for start, wide in floats)


def key_of(step: Step) -> Key:
    """Key of the tensors that a step reads."""
    return tuple([(id(read.checkpoint), read.spec.name) for read in step.own_reads])
