"""Answer first passes by streaming: each is a map over tiles and a reduction in the order of the entries.

A pass sweeps over its entries as often as it needs: `sweep` lists what to visit, `visit` looks at one span (from
any thread), and `absorb` takes the results in order and says whether another sweep is needed. The reductions'
tiles are fixed, so the answer does not depend on how the engine cuts its work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from ...kernels.fused_pipeline import OfStored, products
from ...kernels.gram import TOGETHER, inner_products, inner_products_by_column, inner_products_by_row
from ...methods._passes import Gram, Order, Products, Request, Sum, Top
from ...planning import Step
from ..step.chunks import Span, pieces, tiles
from ..step.evaluate import Prepared, wanted
from ..step.fused import WINDOW_NBYTES
from ..step.inputs import Sources, Tile, Workspace

LONG = 2**20  # entries of a row from which on it is not held whole, if it is alone
BLOCK = 64 * 1024  # entries that are reduced together; part of the contract on bytes


class Answering(ABC):
    """A request on its way to an answer.

    Attributes:
        members: The steps whose entries it covers, in order; more than one when the scope is the model.
    """

    def __init__(self, members: Sequence[Prepared]) -> None:
        self.members = members

    @abstractmethod
    def sweep(self) -> list[Span]:
        """What must be visited next."""

    @abstractmethod
    def visit(self, span: Span, space: Workspace) -> Any:
        """Look at one span."""

    @abstractmethod
    def absorb(self, visits: Sequence[Any]) -> bool:
        """Take in the results of a sweep, in its order; True if the answer is known."""

    @abstractmethod
    def answers_for(self, prepared: Prepared) -> Sequence[Any]:
        """The answer to each request as one of the members sees it."""


def can_share(one: Request, other: Request) -> bool:
    """Whether two requests can be answered by one sweep."""
    match one, other:
        case Top(scope=here, of=a, fused=c), Top(scope=there, of=b, fused=d):
            return here == there and a is b and c is d
        case _:
            return False


def answering(requests: Sequence[Request], members: Sequence[Prepared]) -> Answering:
    """Begin to answer a request, or some that can share their sweeps."""
    from .quantiles import OrderOverall
    from .sums import SumByRow, SumOverall
    from .topk import TopOverall
    from .topk_rows import TopsByRow
    from .topk_whole import TopOfWhole

    request = requests[0]
    match request:
        case Order():
            return OrderOverall(request, members)
        case Top(scope="row") if not _is_one_long_row(members[0]):
            return TopsByRow(cast("Sequence[Top]", requests), members)
        case Top() if members[0].step.is_whole:
            return TopOfWhole(cast("Sequence[Top]", requests), members)
        case Top():
            return TopOverall(cast("Sequence[Top]", requests), members)
        case Gram(scope="row") if not _is_one_long_row(members[0]):
            return GramByRow(request, members)
        case Gram(scope="column") if len(members[0].step.out.shape) > 1:
            return GramByColumn(request, members)
        case Gram():
            return GramOverall(request, members)
        case Sum(scope="row"):
            return SumByRow(request, members)
        case Sum():
            return SumOverall(request, members)


def _is_one_long_row(prepared: Prepared) -> bool:
    """Whether a tensor is a single row that is too long to be held whole: it is looked at as a tensor then."""
    return prepared.step.out.numel == row_length(prepared) > LONG


class GramOverall(Answering):
    """Inner products of whole tensors."""

    def __init__(self, request: Gram, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._of = request.of
        self._total: Any = 0.0

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, BLOCK)]

    def visit(self, span: Span, space: Workspace) -> Any:
        run = self._of_stored(span.prepared.step)
        return list(self._each(span, space) if run is None else self._stored_products(span, run, space))

    def _of_stored(self, step: Step) -> OfStored | None:
        dtypes = {read.spec.dtype for read in step.own_reads}
        return products(dtypes.pop()) if len(dtypes) == 1 else None

    def _stored_products(self, span: Span, run: OfStored, space: Workspace) -> Iterator[Any]:
        step = span.prepared.step
        want = wanted(span.prepared.method)
        sources = Sources(step, span.stop, space, want, tile=BLOCK, window=2 * WINDOW_NBYTES)  # nothing is hashed
        relative = self._of == "deltas" and step.base is not None
        for _, rows in sources.windows(span.start):
            out = np.empty((-(-rows.shape[1] // BLOCK), len(step.reads), len(step.reads)))
            bad = run(rows, out, BLOCK, space.floats("room", len(rows) * TOGETHER), relative)
            if bad >= 0:
                sources.refuse(bad)
            yield from out

    def _each(self, span: Span, space: Workspace) -> Iterator[Any]:
        """The products of one tile after the other."""
        sources = Sources(span.prepared.step, span.stop, space, wanted(span.prepared.method))
        for start, stop in tiles(span, self._length(span.prepared)):
            yield self._products(self._stack(sources, start, stop))

    def _length(self, prepared: Prepared) -> int:
        return BLOCK

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

    def answers_for(self, prepared: Prepared) -> Sequence[Products]:
        return [Products(np.asarray(self._total)[:, :, None], max(prepared.step.out.numel, 1))]


class GramByRow(GramOverall):
    """Inner products row by row."""

    def __init__(self, request: Gram, members: Sequence[Prepared]) -> None:
        super().__init__(request, members)
        out, models = members[0].step.out, len(members[0].step.reads)
        self._rows = np.empty((models, models, out.numel // row_length(members[0])))

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, row_length(member))]

    def _of_stored(self, step: Step) -> None:
        """Rows are blocks of any length."""

    def _length(self, prepared: Prepared) -> int:
        return block_of(row_length(prepared))

    def visit(self, span: Span, space: Workspace) -> None:
        """Products are kept where they belong: there may be as many rows as entries."""
        begin = span.start // row_length(span.prepared)
        for found in self._each(span, space):
            self._rows[:, :, begin : begin + len(found)] = found.transpose(1, 2, 0)
            begin += len(found)

    def _products(self, stack: Tile) -> Any:
        rows = stack.reshape(len(stack), -1, row_length(self.members[0]))
        out = np.empty((rows.shape[1], len(stack), len(stack)))
        inner_products_by_row(rows, out)
        return out

    def absorb(self, visits: Sequence[Any]) -> bool:
        return True

    def answers_for(self, prepared: Prepared) -> Sequence[Products]:
        return [Products(self._rows, row_length(prepared))]


class GramByColumn(GramOverall):
    """Inner products column by column: of entries that differ in nothing but their first index."""

    def __init__(self, request: Gram, members: Sequence[Prepared]) -> None:
        super().__init__(request, members)
        out = members[0].step.out
        self._columns = max(out.numel // max(out.shape[0], 1), 1)

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, self._columns)]

    def visit(self, span: Span, space: Workspace) -> Any:
        return [sum(self._each(span, space))]

    def _length(self, prepared: Prepared) -> int:
        return block_of(self._columns)

    def _products(self, stack: Tile) -> Any:
        rows = stack.reshape(len(stack), -1, self._columns)
        out = np.empty((len(stack), len(stack), self._columns))
        inner_products_by_column(rows, out)
        return out

    def answers_for(self, prepared: Prepared) -> Sequence[Products]:
        return [Products(self._total, self._columns, columns=True)]


def block_of(unit: int) -> int:
    """How many entries are reduced together, where that must be a multiple of some number."""
    return max(BLOCK // unit, 1) * unit


def row_length(prepared: Prepared) -> int:
    """Entries of the last dimension; all of them in a vector."""
    shape = prepared.step.out.shape
    return max(shape[-1] if len(shape) > 1 else prepared.step.out.numel, 1)
