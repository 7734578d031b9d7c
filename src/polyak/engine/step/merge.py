"""Merge chunks: the last stage of every group, into whatever takes the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ...errors import Mismatch, NotFinite, Remedy
from ...kernels.convert import encode
from ...storage import Leaves, Unhashed, of_small
from .. import tuning
from .buffers import Buffers
from .chunks import Chunk, tiles
from .evaluate import evaluate, merged_tiles
from .fused import fused_pipeline, merge_fused, merge_rows, not_storable
from .inputs import tile_length
from .masks import MaskPacker
from .sink import Sink
from .small_tensors import SmallTensorSources, batches


class Merger:
    """Merges chunks of prepared steps into a sink.

    Args of the constructor:
        sink: Destination of the result.
        algorithm: Digest algorithm; None computes no digests.
        tile: Entries that are merged at a time.
    """

    def __init__(self, sink: Sink, algorithm: str | None, tile: int | None = None) -> None:
        self._sink, self._algorithm, self._tile = sink, algorithm, tile

    def __call__(self, chunks: Sequence[Chunk], buffers: Buffers) -> None:
        for batch in batches(chunks, self._tile):
            if len(batch) == 1 or not self._together(batch, buffers):
                for chunk in batch:
                    self._one(chunk, buffers)

    def _together(self, chunks: Sequence[Chunk], buffers: Buffers) -> bool:
        """Merge tiny tensors as one; False if a number among them is not finite."""
        prepared, out = chunks[0].prepared, chunks[0].prepared.step.out
        sources = SmallTensorSources(chunks, buffers)
        begins = [begin * out.dtype.itemsize for begin in sources.begins]
        data = buffers.bytes("encoded", begins[-1])
        try:
            if (run := fused_pipeline(prepared)) is not None:
                merge_rows(prepared, run, sources.rows(), 0, data, buffers, sources)
            elif not encode(evaluate(prepared, 0, sources.begins[-1], buffers, sources.all()), out.dtype, data):
                return False
        except NotFinite:
            return False
        self._sink.write_whole([chunk.prepared.step for chunk in chunks], data)
        for chunk, begin, end, reads in zip(chunks, begins, begins[1:], sources.digests(self._algorithm), strict=False):
            self._sink.done(chunk, of_small(data[begin:end], self._algorithm), reads)
        return True

    def _one(self, chunk: Chunk, buffers: Buffers) -> None:
        step = chunk.prepared.step
        written = self._leaves()
        reads = [self._leaves() for _ in step.every_read]
        packer = MaskPacker(chunk, self._algorithm) if step.masks and self._algorithm else None
        for start, data in self._parts(chunk, buffers, reads, packer):
            self._sink.write(step, start, data)
            written.update(data)
            if packer:
                for mask, begin, row in packer.taken(start + len(data) // step.out.dtype.itemsize):
                    self._sink.write(mask, begin, row)
        self._sink.done(chunk, written.digests(), [leaves.digests() for leaves in reads])
        if packer:
            self._finish_masks(packer)

    def _parts(
        self, chunk: Chunk, buffers: Buffers, reads: Sequence[Leaves | Unhashed], packer: MaskPacker | None
    ) -> Parts:
        if chunk.prepared.step.kind != "merge":
            return _copied(chunk, buffers, reads, self._tile)
        if self._tile is None and chunk.stop > chunk.start and (run := fused_pipeline(chunk.prepared)) is not None:
            return merge_fused(chunk, run, buffers, lambda i, raw: reads[i].update(raw))
        return _merged(chunk, buffers, reads, self._tile, packer)

    def _leaves(self) -> Leaves | Unhashed:
        return Leaves(self._algorithm) if self._algorithm else Unhashed()

    def _finish_masks(self, packer: MaskPacker) -> None:
        for scale, data in packer.scales():
            self._sink.write(scale, 0, data)
        for mask, digests in packer.digests():
            self._sink.done(mask, digests, [])


Parts: TypeAlias = Iterator[tuple[int, Any]]  # where a part begins, and its bytes


def _merged(
    chunk: Chunk, buffers: Buffers, reads: Sequence[Leaves | Unhashed], tile: int | None, packer: MaskPacker | None
) -> Parts:
    prepared, out = chunk.prepared, chunk.prepared.step.out
    length = tile_length(prepared.step, tile)
    room = max(tuning.ENCODED_NBYTES // out.dtype.itemsize // length, 1) * length
    data = buffers.bytes("encoded", min(room, max(chunk.stop - chunk.start, 1)) * out.dtype.itemsize)
    begin, used = chunk.start, 0
    observe = packer.observe if packer else None
    for start, merged in merged_tiles(
        prepared, chunk.start, chunk.stop, buffers, lambda i, raw: reads[i].update(raw), tile, observe
    ):
        nbytes = merged.size * out.dtype.itemsize
        if used + nbytes > data.size:
            yield begin, data[:used]
            begin, used = start, 0
        if not encode(merged, out.dtype, data[used : used + nbytes]):
            raise not_storable(prepared.step, prepared.method.name)
        used += nbytes
    if used:
        yield begin, data[:used]


def _copied(chunk: Chunk, buffers: Buffers, reads: Sequence[Leaves | Unhashed], tile: int | None) -> Parts:
    step = chunk.prepared.step
    itemsize = step.out.dtype.itemsize
    for start, stop in tiles(chunk, tile or tuning.ENCODED_NBYTES // itemsize):
        nbytes = (stop - start) * itemsize
        data = buffers.bytes("encoded", nbytes)
        for i, read in enumerate(step.reads):
            into = data if i == 0 else buffers.bytes("stored", nbytes)
            read.checkpoint.read_into(read.spec.name, start, stop, into)
            reads[i].update(into)
            buffers.nbytes_read += nbytes
            if i and not (into == data).all():
                raise Mismatch(
                    f"{step.out.name!r} holds {step.out.dtype}, which is not averaged, and differs between "
                    f"{step.reads[0].model} and {read.model}.",
                    remedies=[Remedy.BUFFERS],
                )
        yield start, data
