"""Order statistics by value and sign, from searches of magnitudes.

The positive parts of the rows are searched first, the negative parts only where that finds nothing above zero: the
upper quantiles that methods ask for are positive as a rule, and cost one search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import numpy as np

from ..methods._passes import Array, Order, Top
from .passes import Answering
from .sources import Workspace
from .spans import Span
from .tiles import Prepared
from .top import SMALL, TopOverall, _Search


class OrderOverall(Answering):
    """Order statistics of rows over a tensor, or over the whole model."""

    def __init__(self, request: Order, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._request = request
        self._search = _Part(request, 1, members)
        self._found: Any = None

    def sweep(self) -> list[Span]:
        return self._search.sweep()

    def visit(self, span: Span, space: Workspace) -> Any:
        return self._search.visit(span, space)

    def absorb(self, visits: Sequence[Any]) -> bool:
        if not self._search.absorb(visits):
            return False
        if self._found is not None:
            self._found = np.where(self._found == 0, -self._search.values, self._found)
            return True
        self._found = self._search.values
        if (self._found > 0).all():
            return True
        self._search = _Part(self._request, -1, self.members, done=self._found > 0)
        return False

    def answer_for(self, prepared: Prepared) -> Any:
        return self._found


class _Part(TopOverall):
    """The search in the positive parts of the rows, or in their negative parts."""

    def __init__(self, request: Order, sign: int, members: Sequence[Prepared], done: Any = None) -> None:
        def count(entries: int) -> list[int]:
            return [entries - at if sign > 0 else at + 1 for at in request.index(entries)]

        super().__init__(Top(count, request.scope, "all", _part(request.of, sign)), members)
        for search, settled in zip(self._searches, [] if done is None else done, strict=done is not None):
            if settled:
                search.state = "done"

    def _begin(self, count: int) -> _Search:
        return _Search(count, "collect" if self._total <= SMALL else "sample")

    @property
    def values(self) -> Any:
        return np.array([search.value for search in self._searches], np.float32)


@cache
def _part(of: Callable[..., Array], sign: int) -> Callable[..., Array]:
    @wraps(of)
    def part(**given: Any) -> Any:
        return np.maximum(sign * of(**given), np.float32(0))

    return part
