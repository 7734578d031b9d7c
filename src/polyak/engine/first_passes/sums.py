"""Sums of terms, in float64: over tensors, over the whole model, and over rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...kernels.fused_pipeline import FINITE
from ...kernels.sums import LANES, WIDTH, add_up, sums
from ...methods import Role
from ...methods._passes import Rows, Sum, call, in_rows
from ...methods._tally import Tally
from ..step.chunks import Span, pieces, tiles
from ..step.evaluate import Prepared, definition_supply, sources_for, twin_supply
from ..step.fused import WINDOW_NBYTES
from ..step.inputs import Sources, Workspace
from . import base as passes
from .base import BLOCK, Answering, block_of, row_length


class SumOverall(Answering):
    """Sums of terms, in float64."""

    def __init__(self, request: Sum, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._request = request
        self._total: Any = 0.0

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, block_of(member.step.unit))]

    def visit(self, span: Span, space: Workspace) -> Any:
        share = 1 / max(span.prepared.step.out.numel, 1) if self._request.of_means else 1.0
        return [share * sums for sums in self._each(span, space)]

    def _each(self, span: Span, space: Workspace) -> Iterator[Any]:
        """The sums of one block after the other."""
        prepared, request = span.prepared, self._request
        if (tally := prepared.tally(request)) is not None:
            return tallied(span, tally, space)
        sources = sources_for(prepared, span.stop, space, request.fused or request.term)
        blocks = tiles(span, block_of(prepared.step.unit))
        return (self._sums(prepared, start, stop, sources) for start, stop in blocks)

    def _sums(self, prepared: Prepared, start: int, stop: int, sources: Sources) -> Any:
        fused, loaded = self._request.fused, sources.load(start, stop).shaped(prepared.shape)
        if fused is not None:
            return np.asarray(call(fused, twin_supply(prepared, loaded, start, stop)), np.float64)
        terms = call(self._request.term, definition_supply(prepared, loaded, start, stop))
        return np.sum(terms.reshape(len(terms), -1), axis=1, dtype=np.float64)

    def absorb(self, visits: Sequence[Any]) -> bool:
        for blocks in visits:
            for block in blocks:
                self._total = self._total + block
        return True

    def answers_for(self, prepared: Prepared) -> Sequence[Any]:
        return [self._total]


class SumByRow(SumOverall):
    """Sums of terms over each row."""

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, block_of(row_length(member)))]

    def visit(self, span: Span, space: Workspace) -> Any:
        length = block_of(row_length(span.prepared))
        if self._request.of_parts is not None and length > passes.LONG:
            return [self._sums_of_parts(span.prepared, start, stop, space) for start, stop in tiles(span, length)]
        sources = sources_for(span.prepared, span.stop, space, self._request.fused or self._request.term)
        return [self._sums(span.prepared, start, stop, sources) for start, stop in tiles(span, length)]

    def _sums(self, prepared: Prepared, start: int, stop: int, sources: Sources) -> Any:
        fused, loaded = self._request.fused, sources.load(start, stop)
        if fused is not None:
            supply = twin_supply(prepared, loaded, start, stop)
            return call(fused, supply | in_rows(supply, row_length(prepared)))
        supply = definition_supply(prepared, loaded, start, stop)
        terms = call(self._request.term, supply | in_rows(supply, row_length(prepared)))
        return np.sum(terms, axis=2, dtype=np.float64)

    def _sums_of_parts(self, prepared: Prepared, start: int, stop: int, space: Workspace) -> Any:
        def parts() -> Iterator[tuple[Any, Any]]:
            sources = sources_for(prepared, stop, space, self._request.term)
            for begin, end in tiles(Span(prepared, start, stop), BLOCK):
                loaded = sources.load(begin, end)
                yield loaded.tensors, loaded.base

        assert self._request.of_parts is not None
        return np.asarray(self._request.of_parts(parts), np.float64)[:, None]

    def absorb(self, visits: Sequence[Any]) -> bool:
        self._total = np.concatenate([rows for blocks in visits for rows in blocks], axis=1)
        return True

    def answers_for(self, prepared: Prepared) -> Sequence[Rows]:
        return [Rows(self._total, row_length(prepared))]


def tallied(span: Span, tally: Tally, space: Workspace) -> Iterator[Any]:
    """The sums of one block after the other, from the stored numbers if they are all of one dtype."""
    step, lanes = span.prepared.step, np.zeros((tally.terms, LANES))
    dtypes = {read.spec.dtype for read in step.own_reads}
    run = sums(tally.kernel, dtypes.pop()) if len(dtypes) == 1 else None
    want = frozenset({Role.DELTAS})
    if run is None:
        sources = Sources(step, span.stop, space, want)
        for start, stop in tiles(span, BLOCK):
            lanes[:] = 0.0
            tally.kernel(lanes, sources.load(start, stop).deltas, start, *tally.args)
            add_up(lanes, out := np.empty(tally.terms))
            yield out
        return
    sources = Sources(step, span.stop, space, want, tile=BLOCK, window=2 * WINDOW_NBYTES)  # nothing is hashed
    for start, rows in sources.windows(span.start):
        found = np.empty((-(-rows.shape[1] // BLOCK), tally.terms))
        room = space.floats("room", len(rows) * WIDTH)
        bad = run(rows, found, BLOCK, room, lanes, start, step.base is not None, tally.args)
        if bad != FINITE:
            sources.refuse(bad)
        yield from found
