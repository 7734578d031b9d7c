"""Merge spans: the last stage of every group, into whatever takes the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

from ...checkpoint import Checkpoint
from ...errors import Mismatch, NotFinite
from ...kernels.convert import encode
from ...planning import NestedMerge, Plan, Step
from ...planning.cost import tensors_kept
from ...storage.digest import Leaves, Unhashed, of_small
from ..nested import Kept
from ..schedule.stages import grouped
from ..schedule.threads import Scheduler
from .chunks import Span, tiles
from .device import Device
from .evaluate import Prepared, evaluate, merged_tiles
from .fused import merge_rows, not_storable, streamed, streams
from .inputs import Tile, Workspace, tile_length
from .masks import Packer, without_masks
from .small_tensors import Together, batches


class Sink(Protocol):
    """What takes the merged bytes."""

    def write(self, step: Step, start: int, data: Any) -> None:
        """Take the bytes of a tensor that begin with its entry `start`; from any thread."""
        ...

    def write_whole(self, steps: Sequence[Step], data: Any) -> None:
        """Take the bytes of whole tensors, one after the other; from any thread."""
        begin = 0
        for step in steps:
            self.write(step, 0, data[begin : begin + step.out.nbytes])
            begin += step.out.nbytes

    def done(self, span: Span, out: bytes, reads: Sequence[bytes]) -> None:
        """A span is complete; these are the digests of its leaves, written and read."""
        ...


class Merger:
    """Merges spans of prepared steps into a sink.

    Args of the constructor:
        sink: What takes the result.
        algorithm: How digests are made; None makes none.
        tile: Entries that are merged at a time.
    """

    def __init__(self, sink: Sink, algorithm: str | None, tile: int | None = None) -> None:
        self._sink, self._algorithm, self._tile = sink, algorithm, tile

    def __call__(self, spans: Sequence[Span], space: Workspace) -> None:
        for batch in batches(spans, self._tile):
            if len(batch) == 1 or not self._together(batch, space):
                for span in batch:
                    self._one(span, space)

    def _together(self, spans: Sequence[Span], space: Workspace) -> bool:
        """Merge tiny tensors as one; False if a number among them is not finite."""
        prepared, out = spans[0].prepared, spans[0].prepared.step.out
        sources = Together(spans, space)
        begins = [begin * out.dtype.itemsize for begin in sources.begins]
        data = space.bytes("encoded", begins[-1])
        try:
            if (run := streams(prepared)) is not None:
                merge_rows(prepared, run, sources.rows(), 0, data, space, sources)
            elif not encode(evaluate(prepared, 0, sources.begins[-1], space, sources.all()), out.dtype, data):
                return False
        except NotFinite:
            return False
        self._sink.write_whole([span.prepared.step for span in spans], data)
        for span, begin, end, reads in zip(spans, begins, begins[1:], sources.digests(self._algorithm), strict=False):
            self._sink.done(span, of_small(data[begin:end], self._algorithm), reads)
        return True

    def _one(self, span: Span, space: Workspace) -> None:
        step = span.prepared.step
        written = self._leaves()
        reads = [self._leaves() for _ in step.every_read]
        packer = Packer(span, self._algorithm) if step.masks and self._algorithm else None
        for start, data in self._parts(span, space, reads, packer):
            self._sink.write(step, start, data)
            written.update(data)
            if packer:
                for mask, begin, row in packer.taken(start + len(data) // step.out.dtype.itemsize):
                    self._sink.write(mask, begin, row)
        self._sink.done(span, written.digests(), [leaves.digests() for leaves in reads])
        if packer:
            self._finish(packer)

    def _parts(self, span: Span, space: Workspace, reads: Sequence[Leaves | Unhashed], packer: Packer | None) -> Parts:
        if span.prepared.step.kind != "merge":
            return _copied(span, space, reads, self._tile)
        if self._tile is None and span.stop > span.start and (run := streams(span.prepared)) is not None:
            return streamed(span, run, space, lambda i, raw: reads[i].update(raw))
        return _merged(span, space, reads, self._tile, packer)

    def _leaves(self) -> Leaves | Unhashed:
        return Leaves(self._algorithm) if self._algorithm else Unhashed()

    def _finish(self, packer: Packer) -> None:
        for scale, data in packer.scales():
            self._sink.write(scale, 0, data)
        for beside, digests in packer.digests():
            self._sink.done(beside, digests, [])


Parts: TypeAlias = Iterator[tuple[int, Any]]  # where a part begins, and its bytes
PART_NBYTES = 2**20  # bytes that are written and hashed together


def _merged(
    span: Span, space: Workspace, reads: Sequence[Leaves | Unhashed], tile: int | None, packer: Packer | None
) -> Parts:
    prepared, out = span.prepared, span.prepared.step.out
    length = tile_length(prepared.step, tile)
    room = max(PART_NBYTES // out.dtype.itemsize // length, 1) * length
    data = space.bytes("encoded", min(room, max(span.stop - span.start, 1)) * out.dtype.itemsize)
    begin, used = span.start, 0
    look = packer.look if packer else None
    for start, merged in merged_tiles(
        prepared, span.start, span.stop, space, lambda i, raw: reads[i].update(raw), tile, look
    ):
        nbytes = merged.size * out.dtype.itemsize
        if used + nbytes > data.size:
            yield begin, data[:used]
            begin, used = start, 0
        if not encode(merged, out.dtype, data[used : used + nbytes]):
            raise NotFinite(not_storable(prepared.step, prepared.method.name))
        used += nbytes
    if used:
        yield begin, data[:used]


def _copied(span: Span, space: Workspace, reads: Sequence[Leaves | Unhashed], tile: int | None) -> Parts:
    step = span.prepared.step
    itemsize = step.out.dtype.itemsize
    for start, stop in tiles(span, tile or PART_NBYTES // itemsize):
        nbytes = (stop - start) * itemsize
        data = space.bytes("encoded", nbytes)
        for i, read in enumerate(step.reads):
            into = data if i == 0 else space.bytes("window", nbytes)
            read.checkpoint.read_into(read.spec.name, start, stop, into)
            reads[i].update(into)
            space.nbytes_read += nbytes
            if i and not (into == data).all():
                raise Mismatch(
                    f"{step.out.name!r} holds {step.out.dtype}, which is not averaged, and differs between "
                    f"{step.reads[0].model} and {read.model}. Say which to take, `buffers: first` or `buffers: last`, "
                    "or give a `base:`."
                )
        yield start, data


def prepare(plan: Plan, workers: int, device: Device | None = None) -> list[Prepared]:
    """Prepare the steps of a plan, and whatever nested merges they read from."""
    for model in plan.models.values():
        attach(model, workers, device)
    return [Prepared(step, plan.recipe.seed, device) for step in plan.steps if step.kind != "beside"]


def attach(model: Checkpoint, workers: int, device: Device | None = None) -> None:
    """Let a model be read if it is a nested merge, whatever views lie on it."""
    inner: Checkpoint | None = model
    while inner is not None and not isinstance(inner, NestedMerge):
        inner = inner.inner
    if inner is not None:
        _attach(inner, workers, device)


def _attach(nested: NestedMerge, workers: int, device: Device | None) -> None:
    """Answer the first passes of a nested merge, then let its tensors be computed as they are read."""
    import threading

    prepared = {p.step.out.name: p for p in prepare(without_masks(nested.plan), workers, device)}
    merging = [p for p in prepared.values() if p.step.kind == "merge"]
    Scheduler(grouped(merging, None, lambda span: True), workers).run()
    local, kept = threading.local(), Kept(tensors_kept(workers))

    def merged(one: Prepared, start: int, stop: int) -> Iterator[tuple[int, Tile]]:
        if not hasattr(local, "space"):
            local.space = Workspace()
        if not one.step.is_whole or stop - start == one.step.out.numel:
            return merged_tiles(one, start, stop, local.space)
        whole = kept.get(one.step.out.name, partial(_whole, one, local.space))
        return iter([(start, whole[start:stop])])

    def read_into(name: str, start: int, stop: int, out: Any) -> None:
        one = prepared[name]
        if one.step.kind == "merge":
            for begin, part in merged(one, start, stop):
                out[4 * (begin - start) : 4 * (begin - start + part.size)] = part.view("u1")
        else:
            one.step.reads[0].checkpoint.read_into(one.step.reads[0].spec.name, start, stop, out)

    nested.attach(read_into)


def _whole(one: Prepared, space: Workspace) -> Tile:
    _, tensor = next(merged_tiles(one, 0, one.step.out.numel, space))
    return tensor.copy()
