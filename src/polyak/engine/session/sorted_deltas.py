"""Deltas sorted by magnitude, for merges one after another that trim them at different places.

A sorted tensor answers any later first pass over it, or over the whole model, without a look at the deltas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...kernels.convert import decode_rows
from ...methods import EVERY_TIE, Cut, Top
from ...planning import Step
from .. import tuning
from ..first_passes.threshold import LARGEST
from ..schedule.stages import ranking_key, request_of
from ..step.prepared import PreparedStep
from .input_cache import InputCache, Key, key_of


class _Sorted:
    """The magnitudes of one model's deltas of a tensor, as patterns of float32 in ascending order.

    Values that repeat often, as differences of bfloat16 do, are counted.
    """

    def __init__(self, patterns: Any) -> None:
        patterns.sort()
        last = np.flatnonzero(np.append(patterns[1:] != patterns[:-1], True))
        repeats = tuning.REPEATS * len(last) < len(patterns)
        self._values, self._ends = (patterns[last], last + 1) if repeats else (patterns, None)
        self.nbytes = self._values.nbytes + (0 if self._ends is None else self._ends.nbytes)

    def at(self, rank: int) -> int:
        """The pattern at a place in the order, from 0."""
        return int(self._values[rank if self._ends is None else np.searchsorted(self._ends, rank, "right")])

    def below(self, pattern: int, *, equals: bool) -> int:
        """Count the entries below a pattern, including or excluding those equal to it."""
        at = int(np.searchsorted(self._values, np.uint32(pattern), "right" if equals else "left"))
        return at if self._ends is None else int(self._ends[at - 1]) if at else 0


class SortedDeltas:
    """Sorted deltas by step, within the budget of what is kept.

    A tensor is sorted when it is asked for the second time: many searches move no threshold at all.

    Args of the constructor:
        inputs: The inputs in memory.
        workers: Threads that sort.
    """

    def __init__(self, inputs: InputCache, workers: int) -> None:
        self._inputs, self._workers = inputs, workers
        self._asked: set[Key] = set()
        self._tables: dict[Key, list[_Sorted] | None] = {}

    def answer(self, prepared: Iterable[PreparedStep]) -> None:
        """Give steps the answers of those first passes that rank their deltas, as far as they can be told."""
        for name, request, members in _ranking(prepared):
            if not self._sort(members):
                continue
            tables = [self._tables[key_of(member.step)] or [] for member in members]
            if (ends := _boundaries(request, members, tables)) is None:
                continue
            for member in members:
                member.answers[name] = Cut(*ends, max(member.step.out.numel, 1))

    def _sort(self, members: Sequence[PreparedStep]) -> bool:
        """Sort the members that can be sorted; True if all are."""
        if any(self._inputs.rows(member.step) is None for member in members):
            return False
        keys = [key_of(member.step) for member in members]
        was_asked = self._asked.issuperset(keys)
        self._asked.update(keys)
        if not was_asked:
            return False
        if not (new := [(key, m.step) for key, m in zip(keys, members, strict=True) if key not in self._tables]):
            return all(self._tables[key] for key in keys)
        from concurrent.futures import ThreadPoolExecutor  # every merge imports this file, and few sort

        with ThreadPoolExecutor(self._workers) as threads:
            self._tables.update(
                zip((key for key, _ in new), threads.map(self._sorted, (s for _, s in new)), strict=True)
            )
        return all(self._tables[key] for key in keys)

    def _sorted(self, step: Step) -> list[_Sorted] | None:
        """None where there is no room for them, no base, or a number that is not finite."""
        rows, most = self._inputs.rows(step), 4 * len(step.reads) * step.out.numel
        if rows is None or step.base is None or not self._inputs.take(most):
            return None
        wide = np.empty((len(rows), step.out.numel), np.float32)
        if decode_rows(rows, step.reads[0].spec.dtype, 0, wide, relative=True) >= 0:
            self._inputs.take(-most)
            return None
        sorted_rows = [_Sorted(np.abs(delta).view(np.uint32)) for delta in wide[:-1]]
        self._inputs.take(sum(one.nbytes for one in sorted_rows) - most)
        return sorted_rows


def _ranking(prepared: Iterable[PreparedStep]) -> list[tuple[str, Top, list[PreparedStep]]]:
    """First passes that are yet to be answered and rank deltas over tensors or the model, with what they rank."""
    groups: dict[tuple[str, ...], tuple[str, Top, list[PreparedStep]]] = {}
    for one in prepared:
        for name in one.method.passes if one.step.method else ():
            request = request_of(one, name) if name not in one.answers else None
            if not isinstance(request, Top) or request.of or request.needs or request.scope == "row":
                continue
            own = ranking_key(one) if request.scope == "model" else f"{one.step.part} {one.step.out.name}"
            groups.setdefault((name, request.scope, own), (name, request, []))[2].append(one)
    return list(groups.values())


def _boundaries(
    request: Top, members: Sequence[PreparedStep], tables: Sequence[list[_Sorted]]
) -> tuple[Any, Any] | None:
    """The thresholds that `TopkOfTensors` finds; None if ties at a threshold must be broken by index."""
    total = sum(member.step.out.numel for member in members)
    values, lasts = list[float](), list[int]()
    for model, count in enumerate(request.counts(total, members[0].answers)):
        if count <= 0 or count >= total:
            values.append(np.inf if count <= 0 else -1.0)
            lasts.append(-1)
            continue
        each = [table[model] for table in tables]
        pattern = _boundary(each, total - count)
        if request.ties == "first" and total - count != sum(one.below(pattern, equals=False) for one in each):
            return None
        values.append(float(np.uint32(pattern).view(np.float32)))
        lasts.append(EVERY_TIE)
    return np.array(values, np.float32)[:, None], np.array(lasts, np.int64)[:, None]


def _boundary(tables: Sequence[_Sorted], rank: int) -> int:
    """The pattern at a place in the order of all tables."""
    if len(tables) == 1:
        return tables[0].at(rank)
    low, high = 0, LARGEST  # the smallest pattern with more than `rank` entries up to it
    while low < high:
        middle = (low + high) // 2
        if sum(one.below(middle, equals=True) for one in tables) > rank:
            high = middle
        else:
            low = middle + 1
    return low
