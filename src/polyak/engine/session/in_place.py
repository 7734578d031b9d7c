"""Merge stored numbers straight into where they are used, by methods that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...kernels.convert import decode
from ...kernels.fused_pipeline import FINITE, Through
from ...planning import Step
from ..schedule.stages import Finish
from ..step.chunks import Span, tiles
from ..step.fused import merge_from, streams, sweeps
from ..step.inputs import Workspace
from .input_cache import Resident

Place = Callable[[Step], Any]  # the float32 that a tensor's values go to, flat; None where they cannot
_ROUNDED = 64 * 1024  # entries that are merged and rounded while they are in the cache


class Direct:
    """Merges spans into their places; those that cannot be are left to another.

    Args of the constructor:
        place: Where tensors go.
        inputs: The inputs in memory.
        otherwise: What merges the other spans.
    """

    def __init__(self, place: Place, inputs: Resident, otherwise: Finish) -> None:
        self._place, self._inputs, self._otherwise = place, inputs, otherwise

    def __call__(self, spans: Sequence[Span], space: Workspace) -> None:
        if others := [span for span in spans if not self._merge(span, space)]:
            self._otherwise(others, space)

    def _merge(self, span: Span, space: Workspace) -> bool:
        """Whether that was possible; numbers that are not finite are left to the other, who says where they are."""
        prepared, step = span.prepared, span.prepared.step
        place = None if step.method is None or prepared.loop is None else self._place(step)
        rows = None if place is None else self._inputs.rows(step)
        if rows is None:
            return False
        if self._sweep(span, rows, place):
            return True
        if (run := streams(prepared)) is None:
            return False
        into = _straight if step.out.dtype.name == "F32" else _rounded
        return into(span, run, rows, place, space)

    def _sweep(self, span: Span, rows: Any, place: Any) -> bool:
        """Whether it was merged in one sweep: where a result is not finite, another says so."""
        if (run := sweeps(span.prepared)) is None:
            return False
        finite = self._inputs.are_finite(rows, span.prepared.step.reads[0].spec.dtype)
        return finite and run(rows, place[span.start : span.stop], span.start)


def _straight(span: Span, run: Through, rows: Any, place: Any, space: Workspace) -> bool:
    data = place[span.start : span.stop].view("u1")
    return merge_from(span.prepared, run, rows, span.start, span.start, data, space) == FINITE


def _rounded(span: Span, run: Through, rows: Any, place: Any, space: Workspace) -> bool:
    """By way of what is stored, so that the place holds what a file would."""
    dtype = span.prepared.step.out.dtype
    for start, stop in tiles(span, _ROUNDED):
        data = space.bytes("encoded", dtype.itemsize * (stop - start))
        if merge_from(span.prepared, run, rows, start, start, data, space) != FINITE:
            return False
        decode(data, dtype, place[start:stop])
    return True
