"""Merge from stored numbers to stored numbers by one fused kernel: no tile of float32 leaves the L1 cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import NotFinite, Remedy
from ...kernels.fused_pipeline import FINITE, Through, room_for, through
from ...kernels.one_sweep import Sweep, sweep
from ...methods import Role
from ...planning import Step
from .. import tuning
from .buffers import Buffers, Tap
from .chunks import Chunk
from .evaluate import stacks_wanted
from .inputs import Sources
from .prepared import PreparedStep

_MULTIPLE = 64  # entries: rows of what is read begin at cache lines


def fused_pipeline(prepared: PreparedStep) -> Through | None:
    """The fused kernel that decodes, merges and encodes a step; None if it must be merged tile by tile."""
    step, kernel = prepared.step, prepared.kernel_call
    if kernel is None or step.masks or step.statistics:
        return None
    stored = {read.spec.dtype for read in step.own_reads}
    return through(kernel.kernel, stored.pop(), step.out.dtype) if len(stored) == 1 else None


def merge_fused(chunk: Chunk, run: Through, buffers: Buffers, tap: Tap) -> Iterator[tuple[int, Any]]:
    """The merged entries of a chunk as they are stored: where a part begins, and its bytes.

    Raises:
        NotFinite: a source or the result holds NaN or infinity.
    """
    prepared, step = chunk.prepared, chunk.prepared.step
    sources = Sources(
        step,
        chunk.stop,
        buffers,
        stacks_wanted(prepared.method),
        tap,
        tile=_MULTIPLE,
        read_nbytes=tuning.FUSED_READ_NBYTES,
    )
    size = step.out.dtype.itemsize
    for begin, rows in sources.stored_tiles(chunk.start):
        data = buffers.bytes("encoded", size * rows.shape[1])
        merge_rows(prepared, run, rows, begin, data, buffers, sources)
        yield begin, data


def merge_rows(
    prepared: PreparedStep, run: Through, rows: Any, start: int, data: Any, buffers: Buffers, sources: Sources
) -> None:
    """Merge stored numbers (rows, n), the base last, into bytes.

    Raises:
        NotFinite: a source or the result holds NaN or infinity.
    """
    status = merge_from(prepared, run, rows, 0, start, data, buffers)
    if status != FINITE:
        sources.refuse(status)


def merge_from(
    prepared: PreparedStep, run: Through, rows: Any, offset: int, start: int, data: Any, buffers: Buffers
) -> int:
    """Merge stored numbers (rows, .), the base last, from an offset on; the first row that is not finite, or FINITE.

    Raises:
        NotFinite: the result holds NaN or infinity.
    """
    step, kernel = prepared.step, prepared.kernel_call
    assert kernel is not None
    room = buffers.floats("room", room_for(len(rows)))
    status = run(rows, data, room, offset, start, len(step.reads), *_spaces(prepared), kernel.args)
    if status < 0 and status != FINITE:
        raise not_storable(step, prepared.method.name)
    return status


def one_sweep(prepared: PreparedStep) -> Sweep | None:
    """The kernel that merges a step's finite inputs in one sweep into float32; None if there is none."""
    step, kernel = prepared.step, prepared.kernel_call
    if kernel is None or step.masks or step.statistics:
        return None
    relative, adds = _spaces(prepared)
    stored = step.reads[0].spec.dtype
    return sweep(kernel.kernel, kernel.args, stored, step.out.dtype, len(step.reads), relative=relative, adds=adds)


def _spaces(prepared: PreparedStep) -> tuple[bool, bool]:
    """Two flags: subtract the base from the models, and add it to the result."""
    based = prepared.step.base is not None
    relative = based and Role.DELTAS in prepared.method.inputs.values()
    return relative, based and prepared.method.returns is Role.DELTA


def not_storable(step: Step, method: str) -> NotFinite:
    """The error for a result that its dtype cannot hold."""
    return NotFinite(
        f"the merge of {step.out.name!r} by {method!r} holds numbers that {step.out.dtype} cannot hold.",
        remedies=[Remedy.WIDER],
    )
