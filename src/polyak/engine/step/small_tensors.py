"""Tiny tensors that are merged as one: what Python takes for a tile is paid once for all of them.

A result does not depend on where tiles begin, so neither does it on tensors lying in one tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NoReturn

from ...errors import NotFinite
from ...methods import Role
from ...planning import Step
from ...storage import of_small
from .buffers import Buffers
from .chunks import Chunk
from .evaluate import stacks_wanted
from .inputs import Loaded, Sources, tile_length


def batches(chunks: Iterable[Chunk], tile: int | None) -> Iterator[list[Chunk]]:
    """Put consecutive chunks together that are whole tensors, merged alike, and fit a tile; others stay alone."""
    batch: list[Chunk] = []
    room = 0
    for chunk in chunks:
        size = chunk.stop - chunk.start
        if batch and size <= room and _alike(batch[0], chunk):
            batch.append(chunk)
            room -= size
            continue
        if batch:
            yield batch
        batch = [chunk]
        step = chunk.prepared.step
        room = (tile or tile_length(step)) - size if _is_plain(chunk) else 0
    if batch:
        yield batch


def _is_plain(chunk: Chunk) -> bool:
    """True if the merge of an entry does not depend on its tensor or position."""
    prepared, step = chunk.prepared, chunk.prepared.step
    whole = chunk.start == 0 and chunk.stop == step.out.numel > 0
    if not whole or step.kind != "merge" or step.unit > 1 or prepared.stream is not None:
        return False
    if step.masks or step.statistics or Role.NAME in prepared.method.inputs.values():
        return False
    return not any(answer is not None for answer in prepared.answers.values()) and _is_uniform(step.every_read)


def _is_uniform(reads: Sequence[Any]) -> bool:
    return all(read.spec.dtype is reads[0].spec.dtype for read in reads)


def _alike(first: Chunk, chunk: Chunk) -> bool:
    a, b = first.prepared.step, chunk.prepared.step
    same = a.method is b.method and a.out.dtype is b.out.dtype and (a.base is None) == (b.base is None)
    if not same or a.settings != b.settings or [r.model for r in a.reads] != [r.model for r in b.reads]:
        return False
    return a.reads[0].spec.dtype is b.reads[0].spec.dtype and _is_plain(chunk)


class SmallTensorSources(Sources):
    """The sources of several whole tensors, as one.

    Attributes:
        begins: Offset of each tensor in the joined entries, and the end of the last one.
    """

    def __init__(self, chunks: Sequence[Chunk], buffers: Buffers) -> None:
        self._every = [chunk.prepared.step.every_read for chunk in chunks]
        self.begins = [0, *accumulate(chunk.stop for chunk in chunks)]
        first = chunks[0].prepared
        super().__init__(first.step, self.begins[-1], buffers, stacks_wanted(first.method))

    def all(self) -> Loaded:
        """Everything, as numbers."""
        return self.load(0, self.begins[-1])

    def rows(self) -> Any:
        """Everything as it is stored: (sources, n)."""
        return next(self.stored_tiles(0))[1]

    def digests(self, algorithm: str | None) -> list[list[bytes]]:
        """For each tensor, the leaves' digests of what was read, source by source."""
        size = self._itemsize
        parts = zip(self.begins, self.begins[1:], strict=False)
        return [[of_small(row[a * size : b * size], algorithm) for row in self._raw] for a, b in parts]

    def _take_kept(self, step: Step) -> None:
        """Do nothing: cached rows belong to one tensor each."""

    def _fill(self, start: int, stop: int) -> None:
        """Read everything; it is asked for once."""
        size = self._itemsize
        self._make_room(start, stop)
        for i, row in enumerate(self._raw):
            for reads, begin, end in zip(self._every, self.begins, self.begins[1:], strict=False):
                read = reads[i]
                read.checkpoint.read_into(read.spec.name, 0, end - begin, row[begin * size : end * size])
        self._buffers.nbytes_read += self._raw.size

    def _refuse(self, number: int, start: int, offset: int, n: int) -> NoReturn:
        raise NotFinite("one of several tensors is not finite.")  # who merges them one by one will say which
