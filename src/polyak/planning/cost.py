"""Memory of one worker for one step."""

from __future__ import annotations

import math

from ..methods import Law, Method
from .steps import Step

# Measured: 30 to 40 MB, and 120 MB where Numba compiles kernels; the rest is a reserve.
PROCESS_NBYTES = 170_000_000
TILE = 128 * 1024  # maximum number of entries that are merged at a time
COLLECTED_NBYTES = 2**20  # bytes per model and worker that a first pass collects at a time
BUFFERS_NBYTES = 8 * 2**20  # input and output buffers of one worker
SOLVING = 8  # float32 copies of one model's statistic in the memory of a solver: sums and factors in float64
ARRAYS = 3  # float32 copies of every source that a method on whole tensors holds at its peak


def step_nbytes(step: Step) -> int:
    """Anonymous memory of one worker during a step, in bytes."""
    sources = len(step.every_read)
    if step.method is not None and step.unit > 1:
        return _rows_nbytes(step) if Law.ROWS in step.method.laws else _whole_nbytes(step, step.method)
    collected = COLLECTED_NBYTES * len(step.reads) if step.method is not None and step.method.passes else 0
    return min(4 * TILE * (sources + 1), 4_000_000) + BUFFERS_NBYTES + collected


def _rows_nbytes(step: Step) -> int:
    """Bytes of tiles of whole rows."""
    entries = min(max(step.unit, TILE), math.prod(step.out.shape))
    return 4 * entries * (ARRAYS * len(step.own_reads) + 2) + BUFFERS_NBYTES


def _whole_nbytes(step: Step, method: Method) -> int:
    """Bytes of every source as stored and in float32, of the result, and of the method's workspace."""
    numel = math.prod(step.out.shape)
    measured = [read.spec.nbytes for reads in step.statistics.values() for read in reads]
    solving = sum(measured) + SOLVING * max(measured, default=0)
    if method.workspace is None:
        return 4 * numel * (ARRAYS * len(step.own_reads) + 2) + solving
    inputs = sum(numel * (read.spec.dtype.itemsize + 4) for read in step.own_reads)
    return inputs + 8 * numel + method.workspace(len(step.reads), step.out.shape) + solving
