"""The largest entries of each row by magnitude, exactly, for all requests of a method in one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels.topk_rows import LANES, cut_rows
from ...methods import EVERY_TIE, Cut, Top
from .. import tuning
from ..step.buffers import Buffers
from ..step.chunks import Chunk, chunks_of, tiles
from ..step.prepared import PreparedStep
from .base import RunningPass, refuse_nan, row_length
from .ranked import RankedValues


class TopkByRow(RunningPass):
    """The largest entries of each row of a tensor, for requests that let the same numbers compete.

    Args:
        requests: Some requests that differ in their counts and ties only.
        members: One step.
    """

    def __init__(self, requests: Sequence[Top], members: Sequence[PreparedStep]) -> None:
        super().__init__(members)
        self._requests, self._length = requests, row_length(members[0])
        self._counts = [request.counts(self._length, members[0].answers) for request in requests]
        self._parts: list[tuple[Any, Any]] = []

    def sweep(self) -> list[Chunk]:
        return [chunk for member in self.members for chunk in chunks_of(member, self._length)]

    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        step = max(tuning.BLOCK // self._length, 1) * self._length
        ranked = RankedValues(chunk, self._requests[0], buffers)
        rows = RowCutter(self._counts, self._length)
        cuts = [rows.cut(ranked.values(start, stop), start) for start, stop in tiles(chunk, step)]
        return [np.concatenate(parts, axis=2) for parts in zip(*cuts, strict=True)] if cuts else None

    def absorb(self, visits: Sequence[Any]) -> bool:
        self._parts = [visit for visit in visits if visit is not None]
        for value, _ in self._parts:
            refuse_nan(value, self.members)
        return True

    def answers_for(self, prepared: PreparedStep) -> Sequence[Cut]:
        value, last = (np.concatenate(parts, axis=2) for parts in zip(*self._parts, strict=True))
        for which, request in enumerate(self._requests):
            if request.ties == "all":
                last[which][last[which] >= 0] = EVERY_TIE
        return [Cut(value[which], last[which], self._length) for which in range(len(self._requests))]


class RowCutter:
    """Finds where the largest entries of rows end, tile after tile.

    Args:
        counts: Number of entries to keep per row, for each request and model: (requests, k).
        length: Entries of a row.
    """

    def __init__(self, counts: Sequence[Sequence[int]], length: int) -> None:
        self._counts, self._length = np.array(counts, np.int64), length
        self._guesses = np.full((*self._counts.shape, 2), np.inf)
        self._scratch = [np.empty(max(length + 1, LANES), np.uint32) for _ in range(3)]

    def cut(self, stack: Any, start: int) -> tuple[Any, Any]:
        """For each request, model and row: the smallest magnitude kept, and the index of the last tie kept.

        Args:
            stack: (k, rows * length) float32.
            start: Index in the tensor of the first entry.

        Returns:
            Values and indices, (requests, k, rows).
        """
        rows = stack.reshape(len(stack), -1, self._length)
        value = np.empty((*self._counts.shape, rows.shape[1]), np.float32)
        last = np.empty(value.shape, np.int64)
        cut_rows(rows, self._counts, start, value, last, self._guesses, *self._scratch)
        return value, last
