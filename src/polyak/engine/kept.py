"""Inputs that stay in memory from one merge to the next, as they are stored: all models' rows of a tensor together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint
from ..checkpoint._api import Bytes
from ..kernels.stored import Stored
from ..planning import Step

_EXPONENTS = {"BF16": 0x7F80, "F32": 0x7F800000}  # of the dtypes that are merged as they are stored
_CHECKED = 2**20  # entries that are looked at together

Key = tuple[tuple[int, str], ...]


Reader = Callable[[str, Bytes], None]  # reads a whole tensor


@dataclass
class _Block:
    """The rows of one step, once they have been read."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: Bytes | None = None
    is_plain: bool = False  # finite numbers of a dtype that is merged as it is stored


class Kept:
    """Rows of bytes by step, within a budget.

    Args of the constructor:
        reader: What reads a checkpoint; None if it may be another one at the next merge.
        take: Whether so many more bytes may be kept; a negative number gives some back.
    """

    def __init__(self, reader: Callable[[Checkpoint], Reader | None], take: Callable[[int], bool]) -> None:
        self._reader, self.take = reader, take
        self._blocks: dict[Key, _Block] = {}
        self._lock = threading.Lock()

    def rows(self, step: Step) -> Bytes | None:
        """The stored bytes of the models, and of the base last: (sources, nbytes); None if they are not kept."""
        block = self._block(step)
        return None if block is None else block.rows

    def stored(self, step: Step) -> Stored | None:
        """The same for a method that merges stored numbers; None if they must be widened, or looked at, before."""
        block = self._block(step)
        if block is None or block.rows is None or not block.is_plain:
            return None
        return Stored(block.rows.view(f"u{step.reads[0].spec.dtype.itemsize}"), 0, step.base is not None)

    def _block(self, step: Step) -> _Block | None:
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
                block.is_plain = _is_plain(block.rows, step)
        return block

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


def key_of(step: Step) -> Key:
    """Which tensors a step reads."""
    return tuple((id(read.checkpoint), read.spec.name) for read in step.own_reads)


def _is_plain(rows: Bytes, step: Step) -> bool:
    dtype = step.reads[0].spec.dtype
    exponent = _EXPONENTS.get(dtype.name)
    if exponent is None:
        return False
    bits: Any = rows.view(f"u{dtype.itemsize}").reshape(-1)
    parts = (bits[i : i + _CHECKED] & bits.dtype.type(exponent) for i in range(0, bits.size, _CHECKED))
    return all(int(part.max(initial=0)) < exponent for part in parts)
