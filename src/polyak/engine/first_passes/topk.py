"""The largest entries by magnitude, exactly, in one sweep as a rule: see `boundary`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from ...methods._passes import EVERY_TIE, Cut, Top
from ..step.chunks import Span, pieces, tiles
from ..step.evaluate import Prepared
from ..step.inputs import Workspace
from .base import BLOCK, Answering
from .ranked import Competing
from .threshold import SMALL, Search, State, Visit, bracket_by_sample

RUN = 2048  # consecutive entries of a sample
RUNS = (16, 512)  # of a small tensor, of a whole model
_COUNTING = ("collect", "bins", "ties", "done")


class TopOverall(Answering):
    """The largest entries of each model over a tensor, or over the whole model.

    Args:
        requests: Some requests that differ in their counts and ties only.
        members: The steps whose entries they cover.
    """

    def __init__(self, requests: Sequence[Top], members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._request = requests[0]
        sizes = [member.step.out.numel for member in members]
        self._total = sum(sizes)
        self._begins = {id(m): int(b) for m, b in zip(members, np.cumsum([0, *sizes[:-1]]), strict=True)}
        counts = [request.counts(self._total, members[0].answers) for request in requests]
        self._each = [len(one) for one in counts]
        self._searches = [
            self._begin(count, request.ties) for request, each in zip(requests, counts, strict=True) for count in each
        ]

    def _begin(self, count: int, ties: str) -> Search:
        if count <= 0 or count >= self._total:
            return Search(count, "done", ties, value=float("inf") if count <= 0 else -1.0, last=-1)
        return Search(count, "collect" if self._total < SMALL else "sample", ties)

    def _in(self, state: State) -> bool:
        return any(search.state == state for search in self._searches)

    def sweep(self) -> list[Span]:
        if all(search.state == "done" for search in self._searches):
            return []
        if self._in("sample"):
            return self._runs()
        if all(search.state in ("place", "done") for search in self._searches):
            return [self._span(*search.place) for search in self._searches if search.state == "place"]
        return [span for member in self.members for span in pieces(member, BLOCK)]

    def _runs(self) -> list[Span]:
        """Runs of entries at equal distances over all members."""
        runs = max(RUNS[0], min(RUNS[1], self._total // 2**20))
        starts = np.linspace(0, max(self._total - RUN, 0), runs, dtype=np.int64)
        return [self._span(int(start), int(start) + RUN) for start in starts]

    def _span(self, start: int, stop: int) -> Span:
        """A range over all members, as far as it lies in the member in which it begins."""
        begins = [self._begins[id(m)] for m in self.members]
        which = int(np.searchsorted(begins, start, side="right")) - 1
        member = self.members[which]
        return Span(member, start - begins[which], min(stop - begins[which], member.step.out.numel))

    def visit(self, span: Span, space: Workspace) -> Any:
        competing = Competing(span, self._request, space)
        if self._in("sample"):
            return np.abs(competing.values(span.start, span.stop)).view(np.uint32)
        visits = [Visit(search) for search in self._searches]
        if competing.shift is not None and all(search.state in _COUNTING for search in self._searches):
            for start, stored in competing.stored(span.start):
                index = self._begins[id(span.prepared)] + start
                for visit, bits in zip(visits, cycle(stored[:-1]), strict=False):
                    visit.count_deltas(bits, stored[-1], index, wide=competing.shift == 0)
        else:
            for start, stop in tiles(span, BLOCK):
                for visit, row in zip(visits, cycle(competing.values(start, stop)), strict=False):
                    visit.look(row, self._begins[id(span.prepared)] + start)
        for visit in visits:
            visit.hand_over()
        return visits

    def absorb(self, visits: Sequence[Any]) -> bool:
        sampled = self._in("sample")
        for model, search in enumerate(self._searches):
            seen = [visit[model % len(visit)] for visit in visits]
            if sampled and search.state == "sample":
                bracket_by_sample(search, seen, self._total)
            elif not sampled:
                search.settled_by(seen)
        return all(search.state == "done" for search in self._searches)

    def answers_for(self, prepared: Prepared) -> Sequence[Cut]:
        begin, row, searches = self._begins[id(prepared)], max(prepared.step.out.numel, 1), iter(self._searches)
        each = [list(islice(searches, count)) for count in self._each]
        return [_cut(found, begin, row) for found in each]


def _cut(searches: Sequence[Search], begin: int, row: int) -> Cut:
    value = np.array([[search.value] for search in searches], np.float32)
    last = [[s.last if s.last in (EVERY_TIE, -1) else s.last - begin] for s in searches]
    return Cut(value, np.array(last, np.int64), row)
