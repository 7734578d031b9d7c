"""The largest entries by magnitude, exactly, in one sweep as a rule: see `boundary`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from ...methods import EVERY_TIE, Cut, Top
from .. import tuning
from ..step.buffers import Buffers
from ..step.chunks import Chunk, chunks_of, tiles
from ..step.prepared import PreparedStep
from .base import RunningPass, refuse_nan
from .ranked import RankedValues
from .threshold import State, ThresholdSearch, Visit, bracket_by_sample

_COUNTING = ("collect", "bins", "ties", "done")


class TopkOfTensors(RunningPass):
    """The largest entries of each model over a tensor, or over the whole model.

    Args:
        requests: Some requests that differ in their counts and ties only.
        members: The steps whose entries they cover.
    """

    def __init__(self, requests: Sequence[Top], members: Sequence[PreparedStep]) -> None:
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

    def _begin(self, count: int, ties: str) -> ThresholdSearch:
        if count <= 0 or count >= self._total:
            return ThresholdSearch(count, "done", ties, value=float("inf") if count <= 0 else -1.0, last=-1)
        return ThresholdSearch(count, "collect" if self._total < tuning.COLLECTED else "sample", ties)

    def _in(self, state: State) -> bool:
        return any(search.state == state for search in self._searches)

    def sweep(self) -> list[Chunk]:
        if all(search.state == "done" for search in self._searches):
            return []
        if self._in("sample"):
            return self._runs()
        if all(search.state in ("place", "done") for search in self._searches):
            return [self._span(*search.place) for search in self._searches if search.state == "place"]
        return [chunk for member in self.members for chunk in chunks_of(member, tuning.BLOCK)]

    def _runs(self) -> list[Chunk]:
        """Runs of entries at equal distances over all members."""
        runs = max(tuning.SAMPLE_RUNS[0], min(tuning.SAMPLE_RUNS[1], self._total // 2**20))
        starts = np.linspace(0, max(self._total - tuning.SAMPLE_RUN, 0), runs, dtype=np.int64)
        return [self._span(int(start), int(start) + tuning.SAMPLE_RUN) for start in starts]

    def _span(self, start: int, stop: int) -> Chunk:
        """A range over all members, as far as it lies in the member in which it begins."""
        begins = [self._begins[id(m)] for m in self.members]
        which = int(np.searchsorted(begins, start, side="right")) - 1
        member = self.members[which]
        return Chunk(member, start - begins[which], min(stop - begins[which], member.step.out.numel))

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        ranked = RankedValues(chunk, self._request, buffers)
        if self._in("sample"):
            return np.abs(ranked.values(chunk.start, chunk.stop)).view(np.uint32)
        visits = [Visit(search) for search in self._searches]
        if ranked.shift is not None and all(search.state in _COUNTING for search in self._searches):
            for start, stored in ranked.stored(chunk.start):
                index = self._begins[id(chunk.prepared)] + start
                for visit, bits in zip(visits, cycle(stored[:-1]), strict=False):
                    visit.count_deltas(bits, stored[-1], index, wide=ranked.shift == 0)
        else:
            for start, stop in tiles(chunk, tuning.BLOCK):
                for visit, row in zip(visits, cycle(ranked.values(start, stop)), strict=False):
                    visit.observe(row, self._begins[id(chunk.prepared)] + start)
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
        if not all(search.state == "done" for search in self._searches):
            return False
        if self._request.of is not None:  # the merge refuses NaN that the models hold, and says where
            refuse_nan([search.value for search in self._searches], self.members)
        return True

    def answers_for(self, prepared: PreparedStep) -> Sequence[Cut]:
        begin, row, searches = self._begins[id(prepared)], max(prepared.step.out.numel, 1), iter(self._searches)
        each = [list(islice(searches, count)) for count in self._each]
        return [_cut(found, begin, row) for found in each]


def _cut(searches: Sequence[ThresholdSearch], begin: int, row: int) -> Cut:
    value = np.array([[search.value] for search in searches], np.float32)
    last = [[s.last if s.last in (EVERY_TIE, -1) else s.last - begin] for s in searches]
    return Cut(value, np.array(last, np.int64), row)
