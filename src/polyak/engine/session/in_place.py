"""Merge stored numbers straight into where they are used, by methods that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...kernels.convert import decode
from ...kernels.fused_pipeline import FINITE, Through
from ...planning import Step
from ..schedule.stages import Finish
from ..step.buffers import Buffers
from ..step.chunks import Chunk, tiles
from ..step.fused import fused_pipeline, merge_from, one_sweep
from .input_cache import InputCache

Place = Callable[[Step], Any]  # the float32 that a tensor's values go to, flat; None where they cannot
_ROUNDED = 64 * 1024  # entries that are merged and rounded while they are in the cache


class InPlaceMerger:
    """Merges chunks into their places; those that cannot be are left to another.

    Args of the constructor:
        place: Memory of each tensor.
        inputs: The inputs in memory.
        otherwise: Fallback that merges the other chunks.
    """

    def __init__(self, place: Place, inputs: InputCache, otherwise: Finish) -> None:
        self._place, self._inputs, self._otherwise = place, inputs, otherwise

    def __call__(self, chunks: Sequence[Chunk], buffers: Buffers) -> None:
        if others := [chunk for chunk in chunks if not self._merge(chunk, buffers)]:
            self._otherwise(others, buffers)

    def _merge(self, chunk: Chunk, buffers: Buffers) -> bool:
        """Merge a chunk in place if possible; False leaves it, and values that are not finite, to the fallback."""
        prepared, step = chunk.prepared, chunk.prepared.step
        memory = None if step.method is None or prepared.kernel_call is None else self._place(step)
        rows = None if memory is None else self._inputs.rows(step)
        if rows is None:
            return False
        if self._sweep(chunk, rows, memory):
            return True
        if (run := fused_pipeline(prepared)) is None:
            return False
        into = _straight if step.out.dtype.name == "F32" else _rounded
        return into(chunk, run, rows, memory, buffers)

    def _sweep(self, chunk: Chunk, rows: Any, memory: Any) -> bool:
        """Merge a chunk in one sweep if possible; False also if a result is not finite."""
        if (run := one_sweep(chunk.prepared)) is None:
            return False
        finite = self._inputs.are_finite(rows, chunk.prepared.step.reads[0].spec.dtype)
        return finite and run(rows, memory[chunk.start : chunk.stop], chunk.start)


def _straight(chunk: Chunk, run: Through, rows: Any, memory: Any, buffers: Buffers) -> bool:
    data = memory[chunk.start : chunk.stop].view("u1")
    return merge_from(chunk.prepared, run, rows, chunk.start, chunk.start, data, buffers) == FINITE


def _rounded(chunk: Chunk, run: Through, rows: Any, memory: Any, buffers: Buffers) -> bool:
    """By way of what is stored, so that the memory holds what a file would."""
    dtype = chunk.prepared.step.out.dtype
    for start, stop in tiles(chunk, _ROUNDED):
        data = buffers.bytes("encoded", dtype.itemsize * (stop - start))
        if merge_from(chunk.prepared, run, rows, start, start, data, buffers) != FINITE:
            return False
        decode(data, dtype, memory[start:stop])
    return True
