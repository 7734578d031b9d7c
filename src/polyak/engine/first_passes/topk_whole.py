"""The largest entries of what methods of whole tensors make of them, over the whole model.

What competes is made anew in every sweep, from one whole tensor of all models: to keep it would take as much memory as
the models do. How much it is in all is known after the first sweep, which puts it into bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np

from ...methods._passes import Top, call
from ..step.chunks import Span
from ..step.evaluate import Prepared, whole_supply
from ..step.inputs import Workspace
from .base import BLOCK
from .threshold import Search, Visit
from .topk import TopOverall


class TopOfWhole(TopOverall):
    """The largest entries of each model, of requests that keep all equals of a boundary."""

    def __init__(self, requests: Sequence[Top], members: Sequence[Prepared]) -> None:
        assert all(request.ties == "all" for request in requests)  # the first of some equals would be of one tensor
        super().__init__(requests, members)
        self._requests = requests
        self._entries: dict[int, int] = {}
        self._is_counted = False

    def _begin(self, count: int, ties: str) -> Search:
        search = Search(count, "bins", ties)
        search.use_bins()
        return search

    def sweep(self) -> list[Span]:
        if all(search.state == "done" for search in self._searches):
            return []
        return [Span(member, 0, member.step.out.numel) for member in self.members]

    def visit(self, span: Span, space: Workspace) -> Any:
        assert self._request.of is not None
        found = call(self._request.of, whole_supply(span.prepared, space))
        stack = np.ascontiguousarray(found, np.float32).reshape(len(found), -1)
        self._entries[id(span.prepared)] = stack.shape[1]
        visits = [Visit(search) for search in self._searches]
        for begin in range(0, stack.shape[1], BLOCK):
            for visit, row in zip(visits, cycle(stack), strict=False):
                visit.look(row[begin : begin + BLOCK], begin)
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
