"""Memory that one worker takes for one step."""

from __future__ import annotations

import math

from ..methods import Law, Method
from .steps import Step

PROCESS_NBYTES = 170_000_000  # Python, NumPy, Numba and the compiled kernels, as measured
TILE = 128 * 1024  # the most entries that are merged at a time
COLLECTED_NBYTES = 2**20  # what a first pass may collect for one model at a time, for each worker
BUFFERS_NBYTES = 8 * 2**20  # windows of input and output bytes of one worker
SOLVING = 8  # times one model's float32 statistic: sums and factors in float64
ARRAYS = 3  # float32 copies of every source that a definition on whole tensors holds at its peak


def step_nbytes(step: Step) -> int:
    """Anonymous memory of one worker while it carries out a step."""
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
