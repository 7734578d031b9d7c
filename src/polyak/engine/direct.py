"""Merge stored numbers straight into where they are used, by methods that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import NotFinite
from ..kernels.stored import round_to_bfloat16
from ..methods._passes import call
from ..planning import Step
from .groups import Finish
from .kept import Kept
from .sources import Workspace
from .spans import Span, tiles

Place = Callable[[Step], Any]  # the float32 that a tensor's values go to, flat; None where they cannot
_ROUNDED = 64 * 1024  # entries that are merged and rounded while they are in the cache


class Direct:
    """Merges spans into their places; those that cannot be are left to another.

    Args of the constructor:
        place: Where tensors go.
        kept: The inputs in memory.
        otherwise: What merges the other spans.
    """

    def __init__(self, place: Place, kept: Kept, otherwise: Finish) -> None:
        self._place, self._kept, self._otherwise = place, kept, otherwise

    def __call__(self, spans: Sequence[Span], space: Workspace) -> None:
        if others := [span for span in spans if not self._merge(span)]:
            self._otherwise(others, space)

    def _merge(self, span: Span) -> bool:
        step = span.prepared.step
        if step.method is None or step.method.direct is None or step.out.dtype.name not in ("F32", "BF16"):
            return False
        if (place := self._place(step)) is None or (stored := self._kept.stored(step)) is None:
            return False
        supply = span.prepared.answers | span.prepared.flat
        rounds = step.out.dtype.name == "BF16"
        for start, stop in tiles(span, _ROUNDED if rounds else max(span.stop - span.start, 1)):
            out = place[start:stop]
            finite = call(step.method.direct, {**supply, "out": out, "stored": replace(stored, start=start)})
            if finite is None:
                return False
            if not finite or (rounds and not round_to_bfloat16(out)):
                raise NotFinite(overflow(step))
        return True


def overflow(step: Step) -> str:
    """What is said of a result that its dtype cannot hold."""
    assert step.method is not None
    return (
        f"the merge of {step.out.name!r} by {step.method.name!r} holds numbers that {step.out.dtype} "
        "cannot hold. Write a wider `dtype:`, or look at weights and scale."
    )
