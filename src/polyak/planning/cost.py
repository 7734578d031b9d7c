"""What a plan costs in memory."""

from __future__ import annotations

import math

from ..checkpoint import Checkpoint
from ..methods import Law
from ._model import NestedMerge, Plan, Step

PROCESS_NBYTES = 170_000_000  # Python, NumPy, Numba and the compiled kernels, as measured
TILE = 128 * 1024  # the most entries that are merged at a time
COLLECTED_NBYTES = 2**20  # what a first pass may collect for one model at a time, for each worker
BUFFERS_NBYTES = 8 * 2**20  # windows of input and output bytes of one worker
ARRAYS = 3  # float32 copies of every source that a definition on whole tensors holds at its peak


def peak_nbytes(plan: Plan, workers: int) -> int:
    """About how much anonymous memory a merge holds at its peak.

    For methods that are elementwise after their first passes it does not grow with the size of tensors or models.
    """
    held = sum(_held_nbytes(model) for model in plan.models.values())
    return PROCESS_NBYTES + held + workers * max((_step_nbytes(step) for step in plan.steps), default=0)


def _held_nbytes(model: Checkpoint) -> int:
    """What a model holds in memory however small the piece that is read: the factors of its adapters."""
    inner = model
    while not isinstance(inner, NestedMerge):
        if inner.inner is None:
            return model.held_nbytes
        inner = inner.inner
    return model.held_nbytes + sum(_held_nbytes(one) for one in inner.plan.models.values())


def _step_nbytes(step: Step) -> int:
    sources = len(step.every_read)
    if step.method is not None and Law.ELEMENTWISE not in step.method.laws:
        return 4 * math.prod(step.out.shape) * (ARRAYS * sources + 2)
    collected = COLLECTED_NBYTES * len(step.reads) if step.method is not None and step.method.passes else 0
    return min(4 * TILE * (sources + 1), 4_000_000) + BUFFERS_NBYTES + collected


def workers_within(plan: Plan, workers: int, memory: int) -> int:
    """The most workers, up to `workers`, that stay within a budget; 0 if not even one does."""
    return next((n for n in range(workers, 0, -1) if peak_nbytes(plan, n) <= memory), 0)
