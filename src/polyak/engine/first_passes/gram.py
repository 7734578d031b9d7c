"""Inner products of the models: of whole tensors, row by row, or column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...kernels.fused_pipeline import OfStored, products
from ...kernels.gram import TOGETHER, inner_products, inner_products_by_column, inner_products_by_row
from ...methods import Gram, Products
from ...planning import Step
from .. import tuning
from ..step.buffers import Buffers, Tile
from ..step.chunks import Chunk, chunks_of, tiles
from ..step.evaluate import stacks_wanted
from ..step.inputs import Sources
from ..step.prepared import PreparedStep
from .base import RunningPass, block_of, row_length


class GramOfTensors(RunningPass):
    """Inner products of whole tensors."""

    def __init__(self, request: Gram, members: Sequence[PreparedStep]) -> None:
        super().__init__(members)
        self._of = request.of
        self._total: Any = 0.0

    def sweep(self) -> list[Chunk]:
        return [chunk for member in self.members for chunk in chunks_of(member, tuning.BLOCK)]

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        run = self._of_stored(chunk.prepared.step)
        return list(self._each(chunk, buffers) if run is None else self._stored_products(chunk, run, buffers))

    def _of_stored(self, step: Step) -> OfStored | None:
        dtypes = {read.spec.dtype for read in step.own_reads}
        return products(dtypes.pop()) if len(dtypes) == 1 else None

    def _stored_products(self, chunk: Chunk, run: OfStored, buffers: Buffers) -> Iterator[Any]:
        step = chunk.prepared.step
        want = stacks_wanted(chunk.prepared.method)
        sources = Sources(
            step, chunk.stop, buffers, want, tile=tuning.BLOCK, read_nbytes=2 * tuning.FUSED_READ_NBYTES
        )  # nothing is hashed
        relative = self._of == "deltas" and step.base is not None
        for _, rows in sources.stored_tiles(chunk.start):
            out = np.empty((-(-rows.shape[1] // tuning.BLOCK), len(step.reads), len(step.reads)))
            bad = run(rows, out, tuning.BLOCK, buffers.floats("room", len(rows) * TOGETHER), relative)
            if bad >= 0:
                sources.refuse(bad)
            yield from out

    def _each(self, chunk: Chunk, buffers: Buffers) -> Iterator[Any]:
        """The products of one tile after the other."""
        sources = Sources(chunk.prepared.step, chunk.stop, buffers, stacks_wanted(chunk.prepared.method))
        for start, stop in tiles(chunk, self._length(chunk.prepared)):
            yield self._products(self._stack(sources, start, stop))

    def _length(self, prepared: PreparedStep) -> int:
        return tuning.BLOCK

    def _stack(self, sources: Sources, start: int, stop: int) -> Tile:
        loaded = sources.load(start, stop)
        stack = loaded.deltas if self._of == "deltas" else loaded.tensors
        assert stack is not None
        return stack

    def _products(self, stack: Tile) -> Any:
        out = np.empty((len(stack), len(stack)))
        inner_products(stack, out)
        return out

    def absorb(self, visits: Sequence[Any]) -> bool:
        for blocks in visits:
            for block in blocks:
                self._total = self._total + block
        return True

    def answers_for(self, prepared: PreparedStep) -> Sequence[Products]:
        return [Products(np.asarray(self._total)[:, :, None], max(prepared.step.out.numel, 1))]


class GramByRow(GramOfTensors):
    """Inner products row by row."""

    def __init__(self, request: Gram, members: Sequence[PreparedStep]) -> None:
        super().__init__(request, members)
        out, models = members[0].step.out, len(members[0].step.reads)
        self._rows = np.empty((models, models, out.numel // row_length(members[0])))

    def sweep(self) -> list[Chunk]:
        return [chunk for member in self.members for chunk in chunks_of(member, row_length(member))]

    def _of_stored(self, step: Step) -> None:
        """Rows are blocks of any length."""

    def _length(self, prepared: PreparedStep) -> int:
        return block_of(row_length(prepared))

    def visit(self, chunk: Chunk, buffers: Buffers) -> None:
        """Products are kept where they belong: there may be as many rows as entries."""
        begin = chunk.start // row_length(chunk.prepared)
        for found in self._each(chunk, buffers):
            self._rows[:, :, begin : begin + len(found)] = found.transpose(1, 2, 0)
            begin += len(found)

    def _products(self, stack: Tile) -> Any:
        rows = stack.reshape(len(stack), -1, row_length(self.members[0]))
        out = np.empty((rows.shape[1], len(stack), len(stack)))
        inner_products_by_row(rows, out)
        return out

    def absorb(self, visits: Sequence[Any]) -> bool:
        return True

    def answers_for(self, prepared: PreparedStep) -> Sequence[Products]:
        return [Products(self._rows, row_length(prepared))]


class GramByColumn(GramOfTensors):
    """Inner products column by column: of entries that differ in nothing but their first index."""

    def __init__(self, request: Gram, members: Sequence[PreparedStep]) -> None:
        super().__init__(request, members)
        out = members[0].step.out
        self._columns = max(out.numel // max(out.shape[0], 1), 1)

    def sweep(self) -> list[Chunk]:
        return [chunk for member in self.members for chunk in chunks_of(member, self._columns)]

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        return [sum(self._each(chunk, buffers))]

    def _length(self, prepared: PreparedStep) -> int:
        return block_of(self._columns)

    def _products(self, stack: Tile) -> Any:
        rows = stack.reshape(len(stack), -1, self._columns)
        out = np.empty((len(stack), len(stack), self._columns))
        inner_products_by_column(rows, out)
        return out

    def answers_for(self, prepared: PreparedStep) -> Sequence[Products]:
        return [Products(self._total, self._columns, columns=True)]
