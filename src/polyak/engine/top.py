"""The largest entries by magnitude, exactly, in one sweep as a rule.

A sample brackets the boundary; one sweep counts what lies above the bracket and collects the few inside; a
partition of those decides. Where the sample says that many inside are equal, as differences of bfloat16 are, they
are counted in bins instead: the boundary's bin then holds one value and decides, else it is the next bracket.
A magnitude is handled as the uint32 pattern of its float32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.select import (
    count_and_collect,
    count_and_collect_deltas,
    count_equal,
    count_equal_deltas,
    position_of_equal,
    put_deltas_into_bins,
    put_into_bins,
)
from ..methods._passes import EVERY_TIE, Cut, Top, call
from .passes import BLOCK, Answering
from .sources import Workspace
from .spans import Span, pieces, tiles
from .tiles import Prepared, definition_supply, sources_for, twin_supply

SMALL = 256 * 1024  # entries that are collected whole, without a sample; the most that a piece may collect
HELD = 4 * 2**20  # entries of one model that may be collected in all
RUN = 2048  # consecutive entries of a sample
RUNS = (16, 512)  # of a small tensor, of a whole model
BINS = 4096
REPEATED = 4  # times that a value in a sample's bracket occurs on average, and bins beat collecting
ERRORS = 3.5  # standard errors in a bracket; a miss, one in two thousand, costs a sweep, not the answer
INFINITY = 0x7F800000

Patterns = NDArray[np.uint32]
State = Literal["sample", "collect", "bins", "ties", "place", "done"]
_COUNTING = ("collect", "bins", "ties", "done")


@dataclass
class _Search:
    """The boundary of one model.

    Attributes:
        count: How many entries survive.
        state: What the next sweep does.
        ties: Which of the boundary's equals survive: the `first`, or `all`.
        low: The boundary is at or above this pattern,
        high: and at or below this one.
        held: How many entries have been collected; a limit only, so it may be raced for.
        value: The boundary, once it is known.
        last: Index, over all members, of the last of its equals that survives.
        equals: How many of its equals survive, while `last` is looked for.
        place: The block in which `last` lies, as a range over all members.
        bins: How many entries lie in each part of the bracket,
        ends: and the smallest and the largest pattern of each part.
        lock: Of bins and ends.
    """

    count: int
    state: State
    ties: str = "first"
    low: int = 0
    high: int = INFINITY
    held: int = 0
    value: float = 0.0
    last: int = EVERY_TIE
    equals: int = 0
    place: tuple[int, int] = (0, 0)
    bins: Any = None
    ends: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shift(self) -> int:
        """How far patterns are shifted so that the bracket falls into BINS bins."""
        return max((self.high - self.low).bit_length() - (BINS.bit_length() - 1), 0)

    def bracket(self, low: int, high: int) -> None:
        self.low, self.high, self.held, self.state = low, high, 0, "collect"

    def use_bins(self) -> None:
        self.state = "bins"
        self.bins = np.zeros(BINS, np.int64)
        self.ends = np.tile(np.array([0xFFFFFFFF, 0], np.uint32), (BINS, 1))

    def add_bins(self, bins: Any, ends: Any) -> None:
        """Take in a span's bins, in any order: they are whole numbers."""
        with self.lock:
            self.bins += bins
            np.minimum(self.ends[:, 0], ends[:, 0], out=self.ends[:, 0])
            np.maximum(self.ends[:, 1], ends[:, 1], out=self.ends[:, 1])

    def settle(self, pattern: int, above: int, equal: int, ties: str) -> None:
        """The boundary is known; which of its equals survive may not be."""
        self.value = float(np.uint32(pattern).view(np.float32))
        self.equals = self.count - above
        self.state = "done" if ties == "all" or self.equals == equal else "ties"


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

    def _begin(self, count: int, ties: str) -> _Search:
        if count <= 0 or count >= self._total:
            return _Search(count, "done", ties, value=float("inf") if count <= 0 else -1.0, last=-1)
        return _Search(count, "collect" if self._total < SMALL else "sample", ties)

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
        visits = [_Visit(search) for search in self._searches]
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
                _bracket(search, seen, self._total)
            elif not sampled:
                _DECIDE[search.state](search, seen, search.ties)
        return all(search.state == "done" for search in self._searches)

    def answers_for(self, prepared: Prepared) -> Sequence[Cut]:
        begin, row, searches = self._begins[id(prepared)], max(prepared.step.out.numel, 1), iter(self._searches)
        each = [list(islice(searches, count)) for count in self._each]
        return [_cut(found, begin, row) for found in each]


def _cut(searches: Sequence[_Search], begin: int, row: int) -> Cut:
    value = np.array([[search.value] for search in searches], np.float32)
    last = [[s.last if s.last in (EVERY_TIE, -1) else s.last - begin] for s in searches]
    return Cut(value, np.array(last, np.int64), row)


class Competing:
    """What competes in a span: the deltas, or what a request makes of them."""

    def __init__(self, span: Span, request: Top, space: Workspace) -> None:
        self._of, self._fused, self._prepared = request.of, request.fused, span.prepared
        self._sources = sources_for(span.prepared, span.stop, space, request.fused or request.of)

    @property
    def shift(self) -> int | None:
        """Not None where the deltas can be taken from the stored numbers, without a row of float32."""
        return self._sources.shift if self._of is None else None

    def stored(self, start: int) -> Iterator[tuple[int, Any]]:
        return self._sources.windows(start)

    def values(self, start: int, stop: int) -> Any:
        loaded = self._sources.load(start, stop)
        if self._of is None:
            return loaded.deltas
        if self._fused is not None:
            return call(self._fused, twin_supply(self._prepared, loaded, start, stop))
        return np.ascontiguousarray(call(self._of, definition_supply(self._prepared, loaded, start, stop)), np.float32)


class _Visit:
    """What one span tells about the boundary of one model."""

    def __init__(self, search: _Search) -> None:
        self._search = search
        self._tally = np.zeros(2, np.int64)
        # One pattern needs no collecting: its equals are only counted.
        collects = search.state == "collect" and search.low < search.high and search.held <= HELD
        self.inside = np.empty(SMALL if collects else 0, np.uint32)
        self._bins = np.zeros(BINS if search.state == "bins" else 0, np.int64)
        self._ends = np.tile(np.array([0xFFFFFFFF, 0], np.uint32), (len(self._bins), 1))
        self.blocks: list[tuple[int, int, int]] = []  # (first, stop, how many equals) of blocks that have some
        self.last = -1

    @property
    def above(self) -> int:
        return int(self._tally[0])

    @property
    def used(self) -> int:
        return int(self._tally[1])

    @property
    def is_complete(self) -> bool:
        return self.used < max(len(self.inside), 1)

    def look(self, row: Any, index: int) -> None:
        search = self._search
        match search.state:
            case "collect":
                count_and_collect(row, *self._ends_of_bracket, self.inside, self._tally)
            case "bins":
                put_into_bins(row, *self._ends_of_bracket, *self._parts, self._tally)
            case "ties":
                if found := count_equal(row, self._pattern):
                    self.blocks.append((index, index + row.size, found))
            case "place":
                if search.place[0] == index:
                    self.last = index + position_of_equal(row, self._pattern, search.equals)
            case _:
                pass

    def count_deltas(self, bits: Any, base: Any, index: int, *, wide: bool) -> None:
        """Collect, put into bins, or count equals, from a model's and the base's stored numbers."""
        bracket = self._ends_of_bracket
        if self._search.state == "collect":
            count_and_collect_deltas(bits, base, wide, *bracket, self.inside, self._tally)
        elif self._search.state == "bins":
            put_deltas_into_bins(bits, base, wide, *bracket, *self._parts, self._tally)
        elif self._search.state == "ties":
            for at in range(0, bits.size, BLOCK):
                block = bits[at : at + BLOCK]
                if found := count_equal_deltas(block, base[at : at + BLOCK], wide, self._pattern):
                    self.blocks.append((index + at, index + at + block.size, found))

    def hand_over(self) -> None:
        """Make room: what has been collected is cut to its length, and bins go to where all are added up."""
        if self._search.state == "bins":
            self._search.add_bins(self._bins, self._ends)
        self.inside = self.inside[: self.used].copy() if self.is_complete else self.inside[:0]
        self._search.held += len(self.inside)
        del self._bins, self._ends

    @property
    def _ends_of_bracket(self) -> tuple[np.uint32, np.uint32]:
        return np.uint32(self._search.low), np.uint32(self._search.high)

    @property
    def _parts(self) -> tuple[np.uint32, Any, Any]:
        return np.uint32(self._search.shift), self._bins, self._ends

    @property
    def _pattern(self) -> np.uint32:
        return np.float32(self._search.value).view(np.uint32)


def _bracket(search: _Search, runs: list[Patterns], total: int) -> None:
    """Bracket the boundary by some standard errors of the share above it, as the runs differ."""
    share = search.count / total
    sample = np.sort(np.concatenate(runs))
    middle = sample[int((1 - share) * (len(sample) - 1))]
    above = [np.count_nonzero(run > middle) / len(run) for run in runs]
    margin = ERRORS * float(np.std(above)) / np.sqrt(len(runs)) + 3 / len(sample)
    low, high = (1 - share - margin) * len(sample), (1 - share + margin) * len(sample)
    search.bracket(int(sample[int(low)]) if low >= 0 else 0, int(sample[int(high)]) if high < len(sample) else INFINITY)
    inside = sample[max(int(low), 0) : int(high) + 1]
    if len(inside) > REPEATED * (1 + np.count_nonzero(np.diff(inside))) and search.low < search.high:
        search.use_bins()


def _from_count(search: _Search, visits: list[_Visit], ties: str) -> None:
    above, inside = sum(v.above for v in visits), sum(v.used for v in visits)
    if search.count <= above:
        search.bracket(search.high + 1, INFINITY)
    elif search.count > above + inside:
        search.bracket(0, search.low - 1)
    elif search.low == search.high:
        search.settle(search.low, above, inside, ties)
    elif search.state == "bins":
        _from_bins(search, above, ties)
    elif sum(len(v.inside) for v in visits) < inside:
        search.use_bins()
    else:
        found = np.concatenate([v.inside for v in visits])
        nth = len(found) - (search.count - above)
        pattern = np.partition(found, nth)[nth]
        search.settle(int(pattern), above + int(np.sum(found > pattern)), int(np.sum(found == pattern)), ties)


def _from_bins(search: _Search, above: int, ties: str) -> None:
    reached = above + np.cumsum(search.bins[::-1])[::-1]  # entries in each bin and above it
    chosen = int(np.flatnonzero(reached >= search.count)[-1])
    smallest, largest = (int(end) for end in search.ends[chosen])
    if smallest == largest:
        equal = int(search.bins[chosen])
        search.settle(smallest, int(reached[chosen]) - equal, equal, ties)
    else:
        search.bracket(smallest, largest)


def _from_ties(search: _Search, visits: list[_Visit], ties: str) -> None:
    for visit in visits:
        for first, stop, found in visit.blocks:
            if search.equals <= found:
                search.place, search.state = (first, stop), "place"
                return
            search.equals -= found


def _from_place(search: _Search, visits: list[_Visit], ties: str) -> None:
    for visit in visits:
        if visit.last >= 0:
            search.last, search.state = visit.last, "done"


def _from_nothing(search: _Search, visits: list[_Visit], ties: str) -> None:
    pass


_DECIDE: dict[State, Callable[[_Search, list[_Visit], str], None]] = {
    "collect": _from_count,
    "bins": _from_count,
    "ties": _from_ties,
    "place": _from_place,
    "done": _from_nothing,
}
