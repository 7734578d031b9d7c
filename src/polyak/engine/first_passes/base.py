"""A first pass under way: a map over tiles and a reduction in the order of the entries.

A pass sweeps over its entries as often as it needs: `sweep` lists the chunks to visit, `visit` looks at one of them
(from any thread), and `absorb` takes the results in order and tells whether the answer is complete. The tiles of a
reduction are fixed, so the answer does not depend on how the engine divides its work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import NotFinite
from .. import tuning
from ..step.buffers import Buffers
from ..step.chunks import Chunk
from ..step.prepared import PreparedStep


class RunningPass(ABC):
    """A request on its way to an answer.

    Attributes:
        members: The steps whose entries it covers, in order; more than one when the scope is the model.
    """

    def __init__(self, members: Sequence[PreparedStep]) -> None:
        self.members = members

    @abstractmethod
    def sweep(self) -> list[Chunk]:
        """List the chunks to visit next; empty if the answer is complete."""

    @abstractmethod
    def visit(self, chunk: Chunk, buffers: Buffers) -> Any:
        """Compute what one chunk contributes to the answer."""

    @abstractmethod
    def absorb(self, visits: Sequence[Any]) -> bool:
        """Take in the results of a sweep, in its order; True if the answer is known."""

    @abstractmethod
    def answers_for(self, prepared: PreparedStep) -> Sequence[Any]:
        """The answer to each request as one of the members sees it."""


def refuse_nan(thresholds: Any, members: Sequence[PreparedStep]) -> None:
    """Refuse thresholds that are NaN: finite models whose differences, or the numbers ranked, overflow float32.

    Raises:
        NotFinite: a threshold is NaN.
    """
    if not np.isnan(thresholds).any():
        return
    step, method = members[0].step, members[0].method.name
    others = f" or one of {len(members) - 1} other tensors" if len(members) > 1 else ""
    raise NotFinite(
        f"the numbers that {method!r} ranks for {step.out.name!r}{others} overflow float32 in "
        f"{', '.join(read.model for read in step.reads)}: that tensor holds numbers too large to merge."
    )


def block_of(unit: int) -> int:
    """Block size, rounded down to a multiple of `unit` entries."""
    return max(tuning.BLOCK // unit, 1) * unit


def row_length(prepared: PreparedStep) -> int:
    """Entries of the last dimension; all of them in a vector."""
    shape = prepared.step.out.shape
    return max(shape[-1] if len(shape) > 1 else prepared.step.out.numel, 1)
