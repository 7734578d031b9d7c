"""Answer first passes by streaming: each is a map over tiles and a reduction in the order of the entries.

A pass sweeps over its entries as often as it needs: `sweep` lists what to visit, `visit` looks at one span (from
any thread), and `absorb` takes the results in order and says whether another sweep is needed. The reductions'
tiles are fixed, so the answer does not depend on how the engine cuts its work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.combine import inner_products
from ..methods._passes import Gram, Order, Products, Request, Sum, Top, call
from .sources import Sources, Workspace
from .spans import Span, pieces, tiles
from .tiles import Prepared, definition_supply, twin_supply, wanted

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
    def answer_for(self, prepared: Prepared) -> Any:
        """The answer as one of the members sees it."""


def answering(request: Request, members: Sequence[Prepared]) -> Answering:
    """Begin to answer a request."""
    from .order import OrderOverall
    from .top import TopByRow, TopOverall

    match request:
        case Order():
            return OrderOverall(request, members)
        case Top(scope="row"):
            return TopByRow(request, members)
        case Top():
            return TopOverall(request, members)
        case Gram(scope="row"):
            return GramByRow(request, members)
        case Gram():
            return GramOverall(request, members)
        case Sum():
            return SumOverall(request, members)


class GramOverall(Answering):
    """Inner products of whole tensors."""

    def __init__(self, request: Gram, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._of = request.of
        self._total: Any = 0.0

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, BLOCK)]

    def visit(self, span: Span, space: Workspace) -> Any:
        return self._products(span, BLOCK, space)

    def _products(self, span: Span, length: int, space: Workspace) -> list[Any]:
        sources = Sources(span.prepared.step, span.stop, space, wanted(span.prepared.method))
        return [self._product(sources, start, stop) for start, stop in tiles(span, length)]

    def _product(self, sources: Sources, start: int, stop: int) -> Any:
        loaded = sources.load(start, stop)
        stack: Any = loaded.deltas if self._of == "deltas" else loaded.tensors
        out = np.empty((len(stack), len(stack)))
        inner_products(stack, out)
        return out

    def absorb(self, visits: Sequence[Any]) -> bool:
        for blocks in visits:
            for block in blocks:
                self._total = self._total + block
        return True

    def answer_for(self, prepared: Prepared) -> Products:
        return Products(np.asarray(self._total)[:, :, None], max(prepared.step.out.numel, 1))


class GramByRow(GramOverall):
    """Inner products row by row."""

    def __init__(self, request: Gram, members: Sequence[Prepared]) -> None:
        super().__init__(request, members)
        self._rows: Any = None

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, row_length(member))]

    def visit(self, span: Span, space: Workspace) -> Any:
        return self._products(span, row_length(span.prepared), space)

    def absorb(self, visits: Sequence[Any]) -> bool:
        self._rows = np.stack([row for rows in visits for row in rows], axis=2)
        return True

    def answer_for(self, prepared: Prepared) -> Products:
        return Products(self._rows, row_length(prepared))


class SumOverall(Answering):
    """Sums of terms, in float64."""

    def __init__(self, request: Sum, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._request = request
        self._total: Any = 0.0

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, BLOCK)]

    def visit(self, span: Span, space: Workspace) -> Any:
        want = wanted(span.prepared.method, (self._request.fused or self._request.term,))
        sources = Sources(span.prepared.step, span.stop, space, want)
        share = 1 / max(span.prepared.step.out.numel, 1) if self._request.of_means else 1.0
        return [share * self._sums(span.prepared, start, stop, sources) for start, stop in tiles(span, BLOCK)]

    def _sums(self, prepared: Prepared, start: int, stop: int, sources: Sources) -> Any:
        fused, loaded = self._request.fused, sources.load(start, stop)
        if fused is not None:
            return np.asarray(call(fused, twin_supply(prepared, loaded, start, stop)), np.float64)
        terms = call(self._request.term, definition_supply(prepared, loaded, start, stop))
        return np.sum(terms.reshape(len(terms), -1), axis=1, dtype=np.float64)

    def absorb(self, visits: Sequence[Any]) -> bool:
        for blocks in visits:
            for block in blocks:
                self._total = self._total + block
        return True

    def answer_for(self, prepared: Prepared) -> Any:
        return self._total


def row_length(prepared: Prepared) -> int:
    """Entries of the last dimension; all of them in a vector."""
    shape = prepared.step.out.shape
    return max(shape[-1] if len(shape) > 1 else prepared.step.out.numel, 1)
