"""Merge into memory: no files, the same engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..planning import Plan, Step
from .groups import grouped
from .masking import without_masks
from .merging import Merger, Sink, prepare
from .schedule import Scheduler
from .spans import Span


class _Arrays(Sink):
    """A sink of NumPy arrays."""

    def __init__(self, plan: Plan) -> None:
        self._bytes = {(s.file, s.out.name): np.empty(s.out.nbytes, np.uint8) for s in plan.steps}

    def write(self, step: Step, start: int, data: Any) -> None:
        begin = start * step.out.dtype.itemsize
        self._bytes[step.file, step.out.name][begin : begin + len(data)] = data

    def done(self, span: Span, out: bytes, reads: Sequence[bytes]) -> None:
        pass

    def array(self, step: Step) -> Any:
        return self._bytes[step.file, step.out.name].view(step.out.dtype.numpy).reshape(step.out.shape)


def run_in_memory(
    plan: Plan, *, workers: int = 1, tile: int | None = None, tick: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Carry out a plan and return the merged tensors.

    Args:
        plan: What to do.
        workers: Threads.
        tile: Entries that are merged at a time (default: as fit the cache); the result does not depend on it.
        tick: Called a few times a second.

    Returns:
        NumPy arrays by name (with ml_dtypes where NumPy has no such dtype); heads under `heads/<model>/<name>`.
        Masks are for files, and left out.
    """
    plan = without_masks(plan)
    arrays = _Arrays(plan)
    groups = grouped(prepare(plan, workers), Merger(arrays, "xxh3-128", tile), lambda span: True)
    Scheduler(groups, workers).run(tick)
    return {_name(step): arrays.array(step) for step in plan.steps}


def _name(step: Step) -> str:
    return step.out.name if step.file is None else f"{step.file.removesuffix('.safetensors')}/{step.out.name}"
