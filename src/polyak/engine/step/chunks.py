"""Ranges of entries: how steps are cut into pieces of work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...planning import Step
from .evaluate import Prepared

PIECE = 4 * 2**20  # entries; a multiple of a digest's leaf for every dtype, so that pieces are hashed apart


class Span(NamedTuple):
    """Entries [start, stop) of a step; `number` counts the pieces of the step."""

    prepared: Prepared
    start: int
    stop: int
    number: int = 0


def pieces(prepared: Prepared, unit: int | None = None) -> Iterator[Span]:
    """Cut a step into pieces, the last one apart: those that are written, or of a length that is a multiple of `unit`.

    A tensor without entries has one piece, which is empty: it is written too.
    """
    numel = prepared.step.out.numel
    length = piece_length(prepared.step, unit)
    for number, start in enumerate(range(0, max(numel, 1), length)):
        yield Span(prepared, start, min(start + length, numel), number)


def piece_length(step: Step, unit: int | None = None) -> int:
    """How many entries a piece of a step has, the last piece apart.

    What must be merged together and lies in two pieces is merged twice, so it must be small.
    """
    if step.unit > PIECE // 16:
        return max(step.out.numel, 1)
    if unit is None:
        # Masks have a bit an entry, and their pieces must be a multiple of a digest's leaf too.
        return 8 * PIECE if step.masks else PIECE
    return max(PIECE // unit, 1) * unit


def tiles(span: Span, length: int) -> Iterator[tuple[int, int]]:
    """Cut a span into tiles [start, stop) of some length."""
    for start in range(span.start, span.stop, length):
        yield start, min(start + length, span.stop)


def bundles(spans: Iterable[Span], limit: int = PIECE, most: int = 256) -> Iterator[list[Span]]:
    """Put small consecutive spans together, so that a task is worth scheduling."""
    bundle: list[Span] = []
    held = 0
    for span in spans:
        size = span.stop - span.start
        if bundle and (held + size > limit or len(bundle) >= most):
            yield bundle
            bundle, held = [], 0
        bundle.append(span)
        held += size
    if bundle:
        yield bundle
