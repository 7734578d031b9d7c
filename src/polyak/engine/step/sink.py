"""Destinations of merged tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...planning import Step
from .chunks import Chunk


class Sink(Protocol):
    """The destination of merged bytes; its methods are called from any thread."""

    def write(self, step: Step, start: int, data: Any) -> None:
        """Take bytes of a tensor, beginning with its entry `start`."""
        ...

    def write_whole(self, steps: Sequence[Step], data: Any) -> None:
        """Take the bytes of whole tensors, one after the other."""
        begin = 0
        for step in steps:
            self.write(step, 0, data[begin : begin + step.out.nbytes])
            begin += step.out.nbytes

    def done(self, chunk: Chunk, out: bytes, reads: Sequence[bytes]) -> None:
        """Take note of a complete chunk and of the digests of its leaves, written and read."""

    def place(self, step: Step) -> Any:
        """The flat float32 memory that a tensor may be merged into directly; None if its bytes must be written."""
        return None
