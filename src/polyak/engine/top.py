"""The largest entries by magnitude, exactly, in one sweep as a rule.

A sample brackets the boundary; one sweep counts what lies above the bracket and collects the few inside; a
partition of those decides. Where too many lie inside, because many are equal, a sweep puts them into bins: the
boundary's bin often holds one value and decides, else it is the next bracket.
A magnitude is handled as the uint32 pattern of its float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.select import count_and_collect, count_and_collect_deltas, count_equal, position_of_equal, put_into_bins
from ..methods._passes import EVERY_TIE, Cut, Top, call
from .passes import BLOCK, Answering, row_length
from .sources import Sources, Workspace
from .spans import Span, pieces, tiles
from .tiles import Prepared, definition_supply, twin_supply, wanted

SMALL = 256 * 1024  # entries that are collected whole, without a sample; the most that a piece may collect
HELD = 4 * 2**20  # entries of one model that may be collected in all
RUN = 2048  # consecutive entries of a sample
RUNS = (32, 512)  # of a small tensor, of a whole model
BINS = 4096
ERRORS = 3.5  # standard errors in a bracket; a miss, one in two thousand, costs a sweep, not the answer
INFINITY = 0x7F800000

Patterns = NDArray[np.uint32]
State = Literal["sample", "collect", "bins", "ties", "place", "done"]


@dataclass
class _Search:
    """The boundary of one model.

    Attributes:
        count: How many entries survive.
        state: What the next sweep does.
        low: The boundary is at or above this pattern,
        high: and at or below this one.
        above: How many entries lie above `high`, once a sweep has counted them.
        held: How many entries have been collected; a limit only, so it may be raced for.
        value: The boundary, once it is known.
        last: Index, over all members, of the last of its equals that survives.
        equals: How many of its equals survive, while `last` is looked for.
        place: The block in which `last` lies, as a range over all members.
    """

    count: int
    state: State
    low: int = 0
    high: int = INFINITY
    above: int = 0
    held: int = 0
    value: float = 0.0
    last: int = EVERY_TIE
    equals: int = 0
    place: tuple[int, int] = (0, 0)

    @property
    def shift(self) -> int:
        """How far patterns are shifted so that the bracket falls into BINS bins."""
        return max((self.high - self.low).bit_length() - (BINS.bit_length() - 1), 0)

    def bracket(self, low: int, high: int) -> None:
        self.low, self.high, self.held, self.state = low, high, 0, "collect"

    def settle(self, pattern: int, above: int, equal: int, ties: str) -> None:
        """The boundary is known; which of its equals survive may not be."""
        self.value = float(np.uint32(pattern).view(np.float32))
        self.equals = self.count - above
        self.state = "done" if ties == "all" or self.equals == equal else "ties"


class TopOverall(Answering):
    """The largest entries of each model over a tensor, or over the whole model."""

    def __init__(self, request: Top, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._request = request
        sizes = [member.step.out.numel for member in members]
        self._total = sum(sizes)
        self._begins = {id(m): int(b) for m, b in zip(members, np.cumsum([0, *sizes[:-1]]), strict=True)}
        self._searches = [self._begin(count) for count in request.count(self._total)]

    def _begin(self, count: int) -> _Search:
        if count <= 0 or count >= self._total:
            return _Search(count, "done", value=float("inf") if count <= 0 else -1.0, last=-1)
        return _Search(count, "collect" if self._total <= SMALL else "sample")

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
        competing = _Competing(span, self._request, space)
        if self._in("sample"):
            return np.abs(competing.values(span.start, span.stop)).view(np.uint32)
        visits = [_Visit(search) for search in self._searches]
        if competing.shift is not None and all(search.state in ("collect", "done") for search in self._searches):
            for stored in competing.stored(span.start):
                for visit, bits in zip(visits, stored, strict=False):
                    visit.collect_deltas(bits, stored[-1], competing.shift)
            return visits
        for start, stop in tiles(span, BLOCK):
            for visit, row in zip(visits, competing.values(start, stop), strict=True):
                visit.look(row, self._begins[id(span.prepared)] + start)
        return visits

    def absorb(self, visits: Sequence[Any]) -> bool:
        sampled = self._in("sample")
        for model, search in enumerate(self._searches):
            seen = [visit[model] for visit in visits]
            if sampled and search.state == "sample":
                _bracket(search, seen, self._total)
            elif not sampled:
                _DECIDE[search.state](search, seen, self._request.ties)
        return all(search.state == "done" for search in self._searches)

    def answer_for(self, prepared: Prepared) -> Cut:
        begin, numel = self._begins[id(prepared)], prepared.step.out.numel
        value = np.array([[search.value] for search in self._searches], np.float32)
        last = [[s.last if s.last in (EVERY_TIE, -1) else s.last - begin] for s in self._searches]
        return Cut(value, np.array(last, np.int64), max(numel, 1))


class _Competing:
    """What competes in a span: the deltas, or what a request makes of them."""

    def __init__(self, span: Span, request: Top, space: Workspace) -> None:
        self._of, self._fused, self._prepared = request.of, request.fused, span.prepared
        named = request.fused or request.of
        want = wanted(span.prepared.method, (named,) if named else ())
        self._sources = Sources(span.prepared.step, span.stop, space, want)

    @property
    def shift(self) -> int | None:
        """Not None where the deltas can be taken from the stored numbers, without a row of float32."""
        return self._sources.shift if self._of is None else None

    def stored(self, start: int) -> Iterator[Any]:
        return (window for _, window in self._sources.windows(start))

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
        self.above, self.used = 0, 0
        # One pattern needs no collecting: its equals are only counted.
        collects = search.state == "collect" and search.low < search.high
        self.inside = np.empty(SMALL if collects else 0, np.uint32)
        self.bins = np.zeros(BINS if search.state == "bins" else 0, np.int64)
        self.ends = np.tile(np.array([0xFFFFFFFF, 0], np.uint32), (len(self.bins), 1))
        self.blocks: list[tuple[int, int, int]] = []  # (first, stop, how many equals) of blocks that have some
        self.last = -1

    @property
    def collected(self) -> Patterns:
        return self.inside[: self.used]

    def look(self, row: Any, index: int) -> None:
        search = self._search
        match search.state:
            case "collect":
                self._collect(row)
            case "bins":
                low, high, shift = np.uint32(search.low), np.uint32(search.high), np.uint32(search.shift)
                put_into_bins(row, low, high, shift, self.bins, self.ends)
            case "ties":
                if found := count_equal(row, self._pattern):
                    self.blocks.append((index, index + row.size, found))
            case "place":
                if search.place[0] == index:
                    self.last = index + position_of_equal(row, self._pattern, search.equals)
            case _:
                pass

    def _collect(self, row: Any) -> None:
        low, high = self._ends_of_bracket()
        self._count(*count_and_collect(row, low, high, self.inside, self.used))

    def collect_deltas(self, bits: Any, base: Any, shift: int) -> None:
        """Collect from a model's and the base's stored numbers."""
        if self._search.state == "collect":
            low, high = self._ends_of_bracket()
            self._count(*count_and_collect_deltas(bits, base, np.uint32(shift), low, high, self.inside, self.used))

    def _ends_of_bracket(self) -> tuple[np.uint32, np.uint32]:
        if self._search.held > HELD:
            self.inside = self.inside[:0]
        return np.uint32(self._search.low), np.uint32(self._search.high)

    def _count(self, above: int, used: int) -> None:
        self.above += above
        self._search.held += used - self.used if len(self.inside) else 0
        self.used = used

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


def _from_collection(search: _Search, visits: list[_Visit], ties: str) -> None:
    above, inside = sum(v.above for v in visits), sum(v.used for v in visits)
    if search.count <= above:
        search.bracket(search.high + 1, INFINITY)
    elif search.count > above + inside:
        search.bracket(0, search.low - 1)
    elif search.low == search.high:
        search.settle(search.low, above, inside, ties)
    elif any(v.used > len(v.inside) for v in visits):
        search.above, search.state = above, "bins"
    else:
        found = np.concatenate([v.collected for v in visits])
        nth = len(found) - (search.count - above)
        pattern = np.partition(found, nth)[nth]
        search.settle(int(pattern), above + int(np.sum(found > pattern)), int(np.sum(found == pattern)), ties)


def _from_bins(search: _Search, visits: list[_Visit], ties: str) -> None:
    bins = np.sum([v.bins for v in visits], axis=0)
    reached = search.above + np.cumsum(bins[::-1])[::-1]  # entries in each bin and above it
    chosen = int(np.flatnonzero(reached >= search.count)[-1])
    smallest = int(min(v.ends[chosen, 0] for v in visits))
    largest = int(max(v.ends[chosen, 1] for v in visits))
    if smallest == largest:
        search.settle(smallest, int(reached[chosen] - bins[chosen]), int(bins[chosen]), ties)
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
    "collect": _from_collection,
    "bins": _from_bins,
    "ties": _from_ties,
    "place": _from_place,
    "done": _from_nothing,
}


class TopByRow(Answering):
    """The largest entries of each row of a tensor."""

    def __init__(self, request: Top, members: Sequence[Prepared]) -> None:
        super().__init__(members)
        self._request, self._length = request, row_length(members[0])
        self._counts = request.count(self._length)
        self._parts: list[tuple[Any, Any]] = []

    def sweep(self) -> list[Span]:
        return [span for member in self.members for span in pieces(member, self._length)]

    def visit(self, span: Span, space: Workspace) -> Any:
        step = max(BLOCK // self._length, 1) * self._length
        competing = _Competing(span, self._request, space)
        cuts = [self._cut(competing, start, stop) for start, stop in tiles(span, step)]
        return [np.concatenate(parts, axis=1) for parts in zip(*cuts, strict=True)] if cuts else None

    def _cut(self, competing: _Competing, start: int, stop: int) -> tuple[Any, Any]:
        rows = np.abs(competing.values(start, stop)).reshape(len(self._counts), -1, self._length)
        return cut_rows(rows, self._counts, start, self._request.ties)

    def absorb(self, visits: Sequence[Any]) -> bool:
        self._parts = [visit for visit in visits if visit is not None]
        return True

    def answer_for(self, prepared: Prepared) -> Cut:
        value, last = (np.concatenate(parts, axis=1) for parts in zip(*self._parts, strict=True))
        return Cut(value, last, self._length)


def cut_rows(magnitudes: Any, counts: Sequence[int], start: int, ties: str) -> tuple[Any, Any]:
    """For each model and row, the smallest surviving magnitude and the index of its last surviving equal.

    Args:
        magnitudes: (k, rows, n) float32.
        counts: How many survive in a row of each model.
        start: Index in the tensor of the first entry.
        ties: As in `Top`.
    """
    from ..kernels.select import last_kept

    k, rows, n = magnitudes.shape
    value, last = np.empty((k, rows), np.float32), np.full((k, rows), EVERY_TIE, np.int64)
    for model, count in enumerate(counts):
        if count <= 0 or count >= n:
            value[model], last[model] = np.inf if count <= 0 else -1.0, -1
            continue
        value[model] = np.partition(magnitudes[model], n - count, axis=1)[:, n - count]
        if ties == "first":
            last_kept(magnitudes[model], value[model], count, start, last[model])
    return value, last
