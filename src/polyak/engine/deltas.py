"""The inputs of a step, tile by tile: what learners combine and multiply gradients with."""

from __future__ import annotations

from collections.abc import Iterator

from ..methods import Role
from ..planning import Step
from .step.buffers import Buffers
from .step.inputs import Loaded, Sources, tile_length


def deltas(step: Step, buffers: Buffers) -> Iterator[tuple[int, Loaded]]:
    """The task vectors of a step and its base, a tile at a time: the index of its first entry, and float32 arrays.

    Args:
        step: Step of a plan that the engine has opened, so that nested merges can be read.
        buffers: A tile lives in them until the next one.

    Raises:
        NotFinite: an input holds NaN or infinity.
    """
    size, length = step.out.numel, tile_length(step)
    sources = Sources(step, size, buffers, frozenset({Role.DELTAS}), tile=length)
    for start in range(0, size, length):
        yield start, sources.load(start, min(start + length, size))
