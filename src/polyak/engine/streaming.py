"""Merge tensor by tensor: each is handed on as soon as it is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..planning import Plan, Step
from .nested import opened
from .schedule.stages import grouped
from .schedule.threads import Scheduler
from .step.chunks import Chunk
from .step.masks import without_masks
from .step.merge import Merger
from .step.prepared import prepared_steps
from .step.sink import Sink

Take = Callable[[Step, Any], None]


def stream(plan: Plan, take: Take, *, workers: int = 1, advance: Callable[[int], None] = lambda nbytes: None) -> None:
    """Carry out a plan and hand on each merged tensor, in memory that is bounded by the tensors under way.

    Args:
        plan: The plan; masks are left out.
        take: Called with the step and its merged tensor, in the dtype and shape of `step.out`; from any of the workers'
            threads, in no fixed order. The array is the callee's.
        workers: Threads.
        advance: Told how many bytes of the inputs have been read since the last call.

    Raises:
        NotFinite: an input or the result holds NaN or infinity.
    """
    steps = prepared_steps(opened(without_masks(plan), workers))
    groups = grouped(steps, Merger(_WholeTensors(take), None), lambda chunk: True)
    Scheduler(groups, workers, advance).run()


class _WholeTensors(Sink):
    """A sink that collects the chunks of each tensor, and hands it on when the last one is complete."""

    def __init__(self, take: Take) -> None:
        self._take, self._lock = take, threading.Lock()
        self._open: dict[tuple[str | None, str], tuple[Any, list[int]]] = {}

    def write(self, step: Step, start: int, data: Any) -> None:
        begin = start * step.out.dtype.itemsize
        self._of(step)[0][begin : begin + len(data)] = data

    def done(self, chunk: Chunk, out: bytes, reads: Sequence[bytes]) -> None:
        step = chunk.prepared.step
        data, counts = self._of(step)
        with self._lock:
            counts.append(chunk.stop - chunk.start)
            is_whole = sum(counts) == step.out.numel and self._open.pop(_key(step), None) is not None
        if is_whole:
            self._take(step, data.view(step.out.dtype.numpy).reshape(step.out.shape))

    def _of(self, step: Step) -> tuple[Any, list[int]]:
        with self._lock:
            if _key(step) not in self._open:
                self._open[_key(step)] = (np.empty(step.out.nbytes, np.uint8), [])
            return self._open[_key(step)]


def _key(step: Step) -> tuple[str | None, str]:
    return step.file, step.out.name
