"""Chunks: the ranges of entries into which steps are divided as units of work and of the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...planning import Step
from .. import tuning
from .prepared import PreparedStep


class Chunk(NamedTuple):
    """Entries [start, stop) of a step; `number` counts the chunks of the step."""

    prepared: PreparedStep
    start: int
    stop: int
    number: int = 0


def chunks_of(prepared: PreparedStep, unit: int | None = None) -> Iterator[Chunk]:
    """Divide a step into chunks, of the size that is written or of a multiple of `unit`; the last may be smaller.

    A tensor without entries has one chunk, which is empty: it is written too.
    """
    numel = prepared.step.out.numel
    length = chunk_length(prepared.step, unit)
    for number, start in enumerate(range(0, max(numel, 1), length)):
        yield Chunk(prepared, start, min(start + length, numel), number)


def chunk_length(step: Step, unit: int | None = None) -> int:
    """Chunk size of a step in entries; the last chunk may be smaller.

    What must be merged together and lies in two chunks is merged twice, so it must be small.
    """
    if step.unit > tuning.CHUNK // 16:
        return max(step.out.numel, 1)
    if unit is None:
        # Masks have one bit per entry, and their chunks must be a multiple of a digest's leaf too.
        return 8 * tuning.CHUNK if step.masks else tuning.CHUNK
    return max(tuning.CHUNK // unit, 1) * unit


def tiles(chunk: Chunk, length: int) -> Iterator[tuple[int, int]]:
    """Divide a chunk into tiles [start, stop) of some length."""
    for start in range(chunk.start, chunk.stop, length):
        yield start, min(start + length, chunk.stop)


def bundles(chunks: Iterable[Chunk], limit: int | None = None, most: int = 256) -> Iterator[list[Chunk]]:
    """Put small consecutive chunks together, so that a task is worth scheduling."""
    bundle: list[Chunk] = []
    entries = 0
    for chunk in chunks:
        size = chunk.stop - chunk.start
        if bundle and (entries + size > (limit or tuning.CHUNK) or len(bundle) >= most):
            yield bundle
            bundle, entries = [], 0
        bundle.append(chunk)
        entries += size
    if bundle:
        yield bundle
