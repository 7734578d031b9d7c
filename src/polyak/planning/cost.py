"""What a plan costs in memory."""

from __future__ import annotations

import math

from ..checkpoint import Checkpoint
from ..methods import Law, Method
from ._model import NestedMerge, Plan, Step

PROCESS_NBYTES = 170_000_000  # Python, NumPy, Numba and the compiled kernels, as measured
TILE = 128 * 1024  # the most entries that are merged at a time
COLLECTED_NBYTES = 2**20  # what a first pass may collect for one model at a time, for each worker
BUFFERS_NBYTES = 8 * 2**20  # windows of input and output bytes of one worker
SOLVING = 8  # times one model's float32 statistic: sums and factors in float64
ARRAYS = 3  # float32 copies of every source that a definition on whole tensors holds at its peak


def peak_nbytes(plan: Plan, workers: int) -> int:
    """About how much anonymous memory a merge holds at its peak.

    For methods that are elementwise after their first passes it does not grow with the size of tensors or models.
    """
    held = sum(_held_nbytes(model) for model in plan.models.values())
    kept = tensors_kept(workers) * _kept_nbytes(plan)
    return PROCESS_NBYTES + held + kept + workers * _worker_nbytes(plan)


def tensors_kept(workers: int) -> int:
    """How many tensors of a nested merge are kept that were merged whole, while others read them in parts."""
    return workers + 1


def _kept_nbytes(plan: Plan) -> int:
    """The largest such tensor of every nested merge."""
    nested = [found.plan for model in plan.models.values() if (found := _nested(model))]
    return sum(4 * _largest_whole(one) + _kept_nbytes(one) for one in nested)


def _largest_whole(plan: Plan) -> int:
    return max((step.out.numel for step in plan.steps if step.is_whole), default=0)


def _worker_nbytes(plan: Plan) -> int:
    """What one worker holds; nested merges are computed while it waits for them."""
    nested = [found for model in plan.models.values() if (found := _nested(model))]
    inside = sum(_worker_nbytes(one.plan) for one in nested)
    return inside + max((_step_nbytes(step) for step in plan.steps), default=0)


def _held_nbytes(model: Checkpoint) -> int:
    """What a model holds in memory however small the piece that is read: the factors of its adapters."""
    nested = _nested(model)
    inside = sum(_held_nbytes(one) for one in nested.plan.models.values()) if nested else 0
    return model.held_nbytes + inside


def _nested(model: Checkpoint) -> NestedMerge | None:
    """The nested merge that a model is, whatever views lie on it."""
    inner: Checkpoint | None = model
    while inner is not None and not isinstance(inner, NestedMerge):
        inner = inner.inner
    return inner


def _step_nbytes(step: Step) -> int:
    sources = len(step.every_read)
    if step.method is not None and step.unit > 1:
        return _rows_nbytes(step) if Law.ROWS in step.method.laws else _whole_nbytes(step, step.method)
    collected = COLLECTED_NBYTES * len(step.reads) if step.method is not None and step.method.passes else 0
    return min(4 * TILE * (sources + 1), 4_000_000) + BUFFERS_NBYTES + collected


def _rows_nbytes(step: Step) -> int:
    """Tiles of whole rows."""
    entries = min(max(step.unit, TILE), math.prod(step.out.shape))
    return 4 * entries * (ARRAYS * len(step.own_reads) + 2) + BUFFERS_NBYTES


def _whole_nbytes(step: Step, method: Method) -> int:
    """Bytes and numbers of every source, the result, and what the definition makes of them."""
    numel = math.prod(step.out.shape)
    measured = [read.spec.nbytes for reads in step.statistics.values() for read in reads]
    solving = sum(measured) + SOLVING * max(measured, default=0)
    if method.workspace is None:
        return 4 * numel * (ARRAYS * len(step.own_reads) + 2) + solving
    inputs = sum(numel * (read.spec.dtype.itemsize + 4) for read in step.own_reads)
    return inputs + 8 * numel + method.workspace(len(step.reads), step.out.shape) + solving


def workers_within(plan: Plan, workers: int, memory: int) -> int:
    """The most workers, up to `workers`, that stay within a budget; 0 if not even one does."""
    return next((n for n in range(workers, 0, -1) if peak_nbytes(plan, n) <= memory), 0)
