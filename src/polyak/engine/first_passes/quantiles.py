"""Order statistics by value and sign, from searches of magnitudes.

The positive parts of the numbers are searched first, the negative parts only where that finds nothing above zero: the
upper quantiles that methods ask for are positive as a rule, and cost one search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import numpy as np

from ...methods import Array, Order, Top
from .. import tuning
from ..step.buffers import Buffers
from ..step.chunks import Chunk
from ..step.prepared import PreparedStep
from .base import RunningPass
from .threshold import ThresholdSearch
from .topk import TopkOfTensors


class QuantilesOfTensors(RunningPass):
    """Order statistics of each model over a tensor, or over the whole model."""

    def __init__(self, request: Order, members: Sequence[PreparedStep]) -> None:
        super().__init__(members)
        self._request = request
        self._search = _Part(request, 1, members)
        self._found: Any = None

    def sweep(self) -> list[Chunk]:
        return self._search.sweep()

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        return self._search.visit(chunk, buffers)

    def absorb(self, visits: Sequence[Any]) -> bool:
        if not self._search.absorb(visits):
            return False
        if self._found is not None:
            self._found = np.where(self._found == 0, -self._search.values, self._found)
            return True
        self._found = self._search.values
        if self._request.of is None or (self._found > 0).all():
            return True
        self._search = _Part(self._request, -1, self.members, done=self._found > 0)
        return False

    def answers_for(self, prepared: PreparedStep) -> Sequence[Any]:
        return [self._found.reshape(-1, len(prepared.step.reads))]


class _Part(TopkOfTensors):
    """The search in the positive parts of the numbers, or in their negative parts."""

    def __init__(self, request: Order, sign: int, members: Sequence[PreparedStep], done: Any = None) -> None:
        models = len(members[0].step.reads)

        def count(entries: int) -> list[int]:
            indices = request.index(entries)
            return [entries - at if sign > 0 else at + 1 for at in indices for _ in range(models)]

        kernel = None if request.kernel is None else _part(request.kernel, sign)
        of = None if request.of is None else _part(request.of, sign)
        super().__init__([Top(count, request.scope, "all", of, kernel)], members)
        if done is not None:
            for search, settled in zip(self._searches, done, strict=True):
                search.state = "done" if settled else search.state

    def _begin(self, count: int, ties: str) -> ThresholdSearch:
        """Unlike for the largest entries, the boundary of all of them is wanted too."""
        return ThresholdSearch(count, "collect" if self._total < tuning.COLLECTED else "sample", ties)

    @property
    def values(self) -> Any:
        return np.array([search.value for search in self._searches], np.float32)


@cache
def _part(of: Callable[..., Array], sign: int) -> Callable[..., Array]:
    """The positive or negative parts of what `of` returns."""

    @wraps(of)
    def part(**arguments: Any) -> Any:
        values = of(**arguments)
        return np.maximum(values if sign > 0 else -values, np.float32(0))

    return part
