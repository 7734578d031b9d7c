"""Sums of terms, in float64: over tensors, over the whole model, and over rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...kernels.fused_pipeline import FINITE
from ...kernels.sums import LANES, WIDTH, add_up, sums
from ...methods import Role, Rows, Sum, SumCall, call, in_rows
from .. import tuning
from ..step.buffers import Buffers
from ..step.chunks import Chunk, chunks_of, tiles
from ..step.evaluate import definition_supply, kernel_supply, sources_for
from ..step.inputs import Sources
from ..step.prepared import PreparedStep
from .base import RunningPass, block_of, row_length


class SumOfTensors(RunningPass):
    """Sums of terms, in float64."""

    def __init__(self, request: Sum, members: Sequence[PreparedStep]) -> None:
        super().__init__(members)
        self._request = request
        self._total: Any = 0.0

    def sweep(self) -> list[Chunk]:
        return [chunk for member in self.members for chunk in chunks_of(member, block_of(member.step.unit))]

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        share = 1 / max(chunk.prepared.step.out.numel, 1) if self._request.of_means else 1.0
        return [share * sums for sums in self._each(chunk, buffers)]

    def _each(self, chunk: Chunk, buffers: Buffers) -> Iterator[Any]:
        """The sums of one block after the other."""
        prepared, request = chunk.prepared, self._request
        if request.is_one_call:
            return sums_by_kernel(chunk, prepared.sum_call(request), buffers)
        sources = sources_for(prepared, chunk.stop, buffers, request.kernel or request.term)
        blocks = tiles(chunk, block_of(prepared.step.unit))
        return (self._sums(prepared, start, stop, sources) for start, stop in blocks)

    def _sums(self, prepared: PreparedStep, start: int, stop: int, sources: Sources) -> Any:
        kernel, loaded = self._request.kernel, sources.load(start, stop).shaped(prepared.shape)
        if kernel is not None:
            return np.asarray(call(kernel, kernel_supply(prepared, loaded, start, stop)), np.float64)
        terms = call(self._request.term, definition_supply(prepared, loaded, start, stop))
        return np.sum(terms.reshape(len(terms), -1), axis=1, dtype=np.float64)

    def absorb(self, visits: Sequence[Any]) -> bool:
        for blocks in visits:
            for block in blocks:
                self._total = self._total + block
        return True

    def answers_for(self, prepared: PreparedStep) -> Sequence[Any]:
        return [self._total]


class SumByRow(SumOfTensors):
    """Sums of terms over each row."""

    def sweep(self) -> list[Chunk]:
        return [chunk for member in self.members for chunk in chunks_of(member, block_of(row_length(member)))]

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        length = block_of(row_length(chunk.prepared))
        if self._request.of_parts is not None and length > tuning.LONG_ROW:
            return [self._sums_of_parts(chunk.prepared, start, stop, buffers) for start, stop in tiles(chunk, length)]
        sources = sources_for(chunk.prepared, chunk.stop, buffers, self._request.kernel or self._request.term)
        return [self._sums(chunk.prepared, start, stop, sources) for start, stop in tiles(chunk, length)]

    def _sums(self, prepared: PreparedStep, start: int, stop: int, sources: Sources) -> Any:
        kernel, loaded = self._request.kernel, sources.load(start, stop)
        if kernel is not None:
            supply = kernel_supply(prepared, loaded, start, stop)
            return call(kernel, supply | in_rows(supply, row_length(prepared)))
        supply = definition_supply(prepared, loaded, start, stop)
        terms = call(self._request.term, supply | in_rows(supply, row_length(prepared)))
        return np.sum(terms, axis=2, dtype=np.float64)

    def _sums_of_parts(self, prepared: PreparedStep, start: int, stop: int, buffers: Buffers) -> Any:
        def parts() -> Iterator[tuple[Any, Any]]:
            sources = sources_for(prepared, stop, buffers, self._request.term)
            for begin, end in tiles(Chunk(prepared, start, stop), tuning.BLOCK):
                loaded = sources.load(begin, end)
                yield loaded.tensors, loaded.base

        assert self._request.of_parts is not None
        return np.asarray(self._request.of_parts(parts), np.float64)[:, None]

    def absorb(self, visits: Sequence[Any]) -> bool:
        self._total = np.concatenate([rows for blocks in visits for rows in blocks], axis=1)
        return True

    def answers_for(self, prepared: PreparedStep) -> Sequence[Rows]:
        return [Rows(self._total, row_length(prepared))]


def sums_by_kernel(chunk: Chunk, one: SumCall, buffers: Buffers) -> Iterator[Any]:
    """The sums of one block after the other, from the stored numbers if they are all of one dtype."""
    step, lanes = chunk.prepared.step, np.zeros((one.terms, LANES))
    dtypes = {read.spec.dtype for read in step.own_reads}
    run = sums(one.kernel, dtypes.pop()) if len(dtypes) == 1 else None
    want = frozenset({Role.DELTAS})
    if run is None:
        sources = Sources(step, chunk.stop, buffers, want)
        for start, stop in tiles(chunk, tuning.BLOCK):
            lanes[:] = 0.0
            one.kernel(lanes, sources.load(start, stop).deltas, start, *one.args)
            add_up(lanes, out := np.empty(one.terms))
            yield out
        return
    sources = Sources(
        step, chunk.stop, buffers, want, tile=tuning.BLOCK, read_nbytes=2 * tuning.FUSED_READ_NBYTES
    )  # nothing is hashed
    for start, rows in sources.stored_tiles(chunk.start):
        partial_sums = np.empty((-(-rows.shape[1] // tuning.BLOCK), one.terms))
        room = buffers.floats("room", len(rows) * WIDTH)
        bad = run(rows, partial_sums, tuning.BLOCK, room, lanes, start, step.base is not None, one.args)
        if bad != FINITE:
            sources.refuse(bad)
        yield from partial_sums
