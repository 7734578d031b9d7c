"""Top-k over the whole model for methods of whole tensors, which rank values computed from them.

The ranked values are computed again in every sweep, from one whole tensor of all models: keeping them would take
as much memory as the models. Their total number is known after the first sweep, which counts them in bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np

from ...methods import Top, call
from .. import tuning
from ..step.buffers import Buffers
from ..step.chunks import Chunk
from ..step.evaluate import whole_supply
from ..step.prepared import PreparedStep
from .threshold import ThresholdSearch, Visit
from .topk import TopkOfTensors


class TopkOfDerived(TopkOfTensors):
    """The largest entries of each model, of requests that keep all equals of a boundary."""

    def __init__(self, requests: Sequence[Top], members: Sequence[PreparedStep]) -> None:
        assert all(request.ties == "all" for request in requests)  # the first of some equals would be of one tensor
        super().__init__(requests, members)
        self._requests = requests
        self._entries: dict[int, int] = {}
        self._is_counted = False

    def _begin(self, count: int, ties: str) -> ThresholdSearch:
        search = ThresholdSearch(count, "bins", ties)
        search.use_bins()
        return search

    def sweep(self) -> list[Chunk]:
        if all(search.state == "done" for search in self._searches):
            return []
        return [Chunk(member, 0, member.step.out.numel) for member in self.members]

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        assert self._request.of is not None
        scores = call(self._request.of, whole_supply(chunk.prepared, buffers))
        stack = np.ascontiguousarray(scores, np.float32).reshape(len(scores), -1)
        self._entries[id(chunk.prepared)] = stack.shape[1]
        visits = [Visit(search) for search in self._searches]
        for begin in range(0, stack.shape[1], tuning.BLOCK):
            for visit, row in zip(visits, cycle(stack), strict=False):
                visit.observe(row[begin : begin + tuning.BLOCK], begin)
        for visit in visits:
            visit.hand_over()
        return visits

    def absorb(self, visits: Sequence[Any]) -> bool:
        if not self._is_counted:
            self._count()
        return super().absorb(visits)

    def _count(self) -> None:
        """Tell the searches how many entries survive, now that it is known of how many."""
        total, answers = sum(self._entries.values()), self.members[0].answers
        counts = [count for request in self._requests for count in request.counts(total, answers)]
        for search, count in zip(self._searches, counts, strict=True):
            search.count = count
            if not 0 < count < total:
                search.state, search.last = "done", -1
                search.value = float("inf") if count <= 0 else -1.0
        self._is_counted = True
