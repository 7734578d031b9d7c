"""The search for where a model's largest entries end: what a sweep counts and collects, and what it settles.

A sample brackets the boundary; one sweep counts what lies above the bracket and collects the few inside; a
partition of those decides. Where the sample says that many inside are equal, as differences of bfloat16 are, they
are counted in bins instead: the boundary's bin then holds one value and decides, else it is the next bracket.
A magnitude is handled as the uint32 pattern of its float32. Patterns above that of infinity are NaN and rank above all
numbers, so that the search ends on any bits; a threshold among them is NaN.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...kernels.topk import (
    count_and_collect,
    count_and_collect_deltas,
    count_equal,
    count_equal_deltas,
    position_of_equal,
    put_deltas_into_bins,
    put_into_bins,
)
from ...methods import EVERY_TIE
from .. import tuning

INFINITY, LARGEST = 0x7F800000, 0x7FFFFFFF  # patterns: above infinity, up to the largest, are NaN

Patterns = NDArray[np.uint32]
State = Literal["sample", "collect", "bins", "ties", "place", "done"]


@dataclass
class ThresholdSearch:
    """The search for the threshold of one model.

    Attributes:
        count: Number of entries to keep.
        state: Task of the next sweep.
        ties: Tie-breaking at the threshold: keep the `first`, or `all`.
        low: The threshold is at or above this pattern,
        high: and at or below this one.
        held: Number of entries collected; only a limit, so a race does no harm.
        value: The threshold, once it is known.
        last: Index, over all members, of the last tie that is kept.
        equals: Number of ties to keep, until `last` is found.
        place: The block in which `last` lies, as a range over all members.
        bins: Number of entries in each part of the bracket,
        ends: and the smallest and the largest pattern of each part.
        lock: Guards bins and ends.
    """

    count: int
    state: State
    ties: str = "first"
    low: int = 0
    high: int = LARGEST
    held: int = 0
    value: float = 0.0
    last: int = EVERY_TIE
    equals: int = 0
    place: tuple[int, int] = (0, 0)
    bins: Any = None
    ends: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def settled_by(self, visits: list[Visit]) -> None:
        """Take in what the visits of a sweep saw, in the order of the chunks."""
        _DECIDE[self.state](self, visits)

    @property
    def shift(self) -> int:
        """Right shift of the patterns that maps the bracket to `tuning.BINS` bins."""
        return max((self.high - self.low).bit_length() - (tuning.BINS.bit_length() - 1), 0)

    def bracket(self, low: int, high: int) -> None:
        self.low, self.high, self.held, self.state = low, high, 0, "collect"

    def use_bins(self) -> None:
        self.state = "bins"
        self.bins = np.zeros(tuning.BINS, np.int64)
        self.ends = np.tile(np.array([0xFFFFFFFF, 0], np.uint32), (tuning.BINS, 1))

    def add_bins(self, bins: Any, ends: Any) -> None:
        """Take in a chunk's bins, in any order: sums of integers do not depend on it."""
        with self.lock:
            self.bins += bins
            np.minimum(self.ends[:, 0], ends[:, 0], out=self.ends[:, 0])
            np.maximum(self.ends[:, 1], ends[:, 1], out=self.ends[:, 1])

    def settle(self, pattern: int, above: int, equal: int) -> None:
        """The boundary is known; which of its equals survive may not be."""
        self.value = float(np.uint32(pattern).view(np.float32))
        self.equals = self.count - above
        is_settled = self.ties == "all" or self.equals == equal or pattern > INFINITY
        self.state = "done" if is_settled else "ties"


class Visit:
    """The contribution of one chunk to the search for one model's threshold."""

    def __init__(self, search: ThresholdSearch) -> None:
        self._search = search
        self._sum_call = np.zeros(2, np.int64)
        # One pattern needs no collecting: its equals are only counted.
        collects = search.state == "collect" and search.low < search.high and search.held <= tuning.COLLECTED_TOTAL
        self.inside = np.empty(tuning.COLLECTED if collects else 0, np.uint32)
        self._bins = np.zeros(tuning.BINS if search.state == "bins" else 0, np.int64)
        self._ends = np.tile(np.array([0xFFFFFFFF, 0], np.uint32), (len(self._bins), 1))
        self.blocks: list[tuple[int, int, int]] = []  # (first, stop, how many equals) of blocks that have some
        self.last = -1

    @property
    def above(self) -> int:
        return int(self._sum_call[0])

    @property
    def used(self) -> int:
        return int(self._sum_call[1])

    @property
    def is_complete(self) -> bool:
        return self.used < max(len(self.inside), 1)

    def observe(self, row: Any, index: int) -> None:
        search = self._search
        match search.state:
            case "collect":
                count_and_collect(row, *self._ends_of_bracket, self.inside, self._sum_call)
            case "bins":
                put_into_bins(row, *self._ends_of_bracket, *self._parts, self._sum_call)
            case "ties":
                if count := count_equal(row, self._pattern):
                    self.blocks.append((index, index + row.size, count))
            case "place":
                if search.place[0] == index:
                    self.last = index + position_of_equal(row, self._pattern, search.equals)
            case _:
                pass

    def count_deltas(self, bits: Any, base: Any, index: int, *, wide: bool) -> None:
        """Collect, put into bins, or count equals, from a model's and the base's stored numbers."""
        bracket = self._ends_of_bracket
        if self._search.state == "collect":
            count_and_collect_deltas(bits, base, wide, *bracket, self.inside, self._sum_call)
        elif self._search.state == "bins":
            put_deltas_into_bins(bits, base, wide, *bracket, *self._parts, self._sum_call)
        elif self._search.state == "ties":
            for at in range(0, bits.size, tuning.BLOCK):
                block = bits[at : at + tuning.BLOCK]
                if count := count_equal_deltas(block, base[at : at + tuning.BLOCK], wide, self._pattern):
                    self.blocks.append((index + at, index + at + block.size, count))

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


def bracket_by_sample(search: ThresholdSearch, runs: list[Patterns], total: int) -> None:
    """Bracket the boundary by some standard errors of the share above it, as the runs differ."""
    share = search.count / total
    sample = np.sort(np.concatenate(runs))
    middle = sample[int((1 - share) * (len(sample) - 1))]
    above = [np.count_nonzero(run > middle) / len(run) for run in runs]
    margin = tuning.STANDARD_ERRORS * float(np.std(above)) / np.sqrt(len(runs)) + 3 / len(sample)
    low, high = (1 - share - margin) * len(sample), (1 - share + margin) * len(sample)
    search.bracket(int(sample[int(low)]) if low >= 0 else 0, int(sample[int(high)]) if high < len(sample) else LARGEST)
    inside = sample[max(int(low), 0) : int(high) + 1]
    if len(inside) > tuning.REPEATS * (1 + np.count_nonzero(np.diff(inside))) and search.low < search.high:
        search.use_bins()


def _from_count(search: ThresholdSearch, visits: list[Visit]) -> None:
    above, inside = sum(v.above for v in visits), sum(v.used for v in visits)
    if search.count <= above:
        search.bracket(search.high + 1, LARGEST)
    elif search.count > above + inside:
        search.bracket(0, search.low - 1)
    elif search.low == search.high:
        search.settle(search.low, above, inside)
    elif search.state == "bins":
        _from_bins(search, above)
    elif sum(len(v.inside) for v in visits) < inside:
        search.use_bins()
    else:
        collected = np.concatenate([v.inside for v in visits])
        nth = len(collected) - (search.count - above)
        pattern = np.partition(collected, nth)[nth]
        search.settle(int(pattern), above + int(np.sum(collected > pattern)), int(np.sum(collected == pattern)))


def _from_bins(search: ThresholdSearch, above: int) -> None:
    reached = above + np.cumsum(search.bins[::-1])[::-1]  # entries in each bin and above it
    chosen = int(np.flatnonzero(reached >= search.count)[-1])
    smallest, largest = (int(end) for end in search.ends[chosen])
    if smallest == largest:
        equal = int(search.bins[chosen])
        search.settle(smallest, int(reached[chosen]) - equal, equal)
    else:
        search.bracket(smallest, largest)


def _from_ties(search: ThresholdSearch, visits: list[Visit]) -> None:
    for visit in visits:
        for first, stop, count in visit.blocks:
            if search.equals <= count:
                search.place, search.state = (first, stop), "place"
                return
            search.equals -= count


def _from_place(search: ThresholdSearch, visits: list[Visit]) -> None:
    for visit in visits:
        if visit.last >= 0:
            search.last, search.state = visit.last, "done"


def _from_nothing(search: ThresholdSearch, visits: list[Visit]) -> None:
    pass


_DECIDE: dict[State, Callable[[ThresholdSearch, list[Visit]], None]] = {
    "collect": _from_count,
    "bins": _from_count,
    "ties": _from_ties,
    "place": _from_place,
    "done": _from_nothing,
}
