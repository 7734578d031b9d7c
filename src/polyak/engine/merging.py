"""Merge spans: the last stage of every group, into whatever takes the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from ..checkpoint import Checkpoint
from ..errors import Mismatch, NotFinite
from ..kernels.convert import encode
from ..planning import NestedMerge, Plan, Step
from .batches import Together, batches
from .digest import Leaves, of_small
from .groups import grouped
from .schedule import Scheduler
from .sources import Workspace, tile_length
from .spans import Span, tiles
from .tiles import Prepared, evaluate, sources_of


class Sink(Protocol):
    """What takes the merged bytes."""

    def write(self, step: Step, start: int, data: Any) -> None:
        """Take the bytes of a tensor that begin with its entry `start`; from any thread."""
        ...

    def write_whole(self, steps: Sequence[Step], data: Any) -> None:
        """Take the bytes of whole tensors, one after the other; from any thread."""
        ...

    def done(self, span: Span, out: bytes, reads: Sequence[bytes]) -> None:
        """A span is complete; these are the digests of its leaves, written and read."""
        ...


class Merger:
    """Merges spans of prepared steps into a sink."""

    def __init__(self, sink: Sink, algorithm: str, tile: int | None = None) -> None:
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
            if not encode(evaluate(prepared, 0, sources.begins[-1], space, sources), out.dtype, data):
                return False
        except NotFinite:
            return False
        self._sink.write_whole([span.prepared.step for span in spans], data)
        for span, begin, end, reads in zip(spans, begins, begins[1:], sources.digests(self._algorithm), strict=False):
            self._sink.done(span, of_small(data[begin:end], self._algorithm), reads)
        return True

    def _one(self, span: Span, space: Workspace) -> None:
        step = span.prepared.step
        written = Leaves(self._algorithm)
        reads = [Leaves(self._algorithm) for _ in step.every_read]
        parts = _merged if step.kind == "merge" else _copied
        for start, data in parts(span, space, reads, self._tile):
            self._sink.write(step, start, data)
            written.update(data)
        self._sink.done(span, written.digests(), [leaves.digests() for leaves in reads])


Parts: TypeAlias = Iterator[tuple[int, Any]]  # where a part begins, and its bytes
PART_NBYTES = 2**20  # bytes that are written and hashed together


def _merged(span: Span, space: Workspace, reads: list[Leaves], tile: int | None) -> Parts:
    prepared, step = span.prepared, span.prepared.step
    length = (tile or tile_length(step)) if prepared.elementwise else max(step.out.numel, 1)
    sources = sources_of(prepared, span.stop, space, lambda i, raw: reads[i].update(raw))
    itemsize = step.out.dtype.itemsize
    for begin, end in tiles(span, max(PART_NBYTES // itemsize // length, 1) * length):
        data = space.bytes("encoded", (end - begin) * itemsize)
        for start in range(begin, end, length):
            stop = min(start + length, end)
            merged = evaluate(prepared, start, stop, space, sources)
            if not encode(merged, step.out.dtype, data[(start - begin) * itemsize : (stop - begin) * itemsize]):
                raise NotFinite(
                    f"the merge of {step.out.name!r} by {prepared.method.name!r} holds numbers that {step.out.dtype} "
                    "cannot hold. Write a wider `dtype:`, or look at weights and scale."
                )
        yield begin, data


def _copied(span: Span, space: Workspace, reads: list[Leaves], tile: int | None) -> Parts:
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


def prepare(plan: Plan, workers: int) -> list[Prepared]:
    """Prepare the steps of a plan, and whatever nested merges they read from."""
    for nested in nested_merges(plan):
        _attach(nested, workers)
    return [Prepared(step, plan.recipe.seed) for step in plan.steps]


def nested_merges(plan: Plan) -> Iterable[NestedMerge]:
    """The nested merges among a plan's models, whatever views lie on them."""
    for model in plan.models.values():
        inner: Checkpoint | None = model
        while inner is not None and not isinstance(inner, NestedMerge):
            inner = inner.inner
        if inner is not None:
            yield inner


def _attach(nested: NestedMerge, workers: int) -> None:
    """Answer the first passes of a nested merge, then let its tensors be computed as they are read."""
    import threading

    prepared = {p.step.out.name: p for p in prepare(nested.plan, workers)}
    merging = [p for p in prepared.values() if p.step.kind == "merge"]
    Scheduler(grouped(merging, None, lambda span: True), workers).run()
    local = threading.local()

    def read_into(name: str, start: int, stop: int, out: Any) -> None:
        if not hasattr(local, "space"):
            local.space = Workspace()
        one = prepared[name]
        if one.step.kind == "merge" and one.elementwise:
            sources = sources_of(one, stop, local.space)
            for begin in range(start, stop, length := tile_length(one.step)):
                end = min(begin + length, stop)
                out[4 * (begin - start) : 4 * (end - start)] = evaluate(one, begin, end, local.space, sources).view(
                    "u1"
                )
        elif one.step.kind == "merge":
            whole = evaluate(one, 0, one.step.out.numel, local.space)
            out[:] = whole[start:stop].view("u1")
        else:
            one.step.reads[0].checkpoint.read_into(one.step.reads[0].spec.name, start, stop, out)

    nested.attach(read_into)
