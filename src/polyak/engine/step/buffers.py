"""The buffers of one worker."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Bytes
from ...planning import Step

Tile = NDArray[np.float32]
Tap = Callable[[int, Bytes], None]  # called with the number of a read and the bytes it delivered


class Buffers:
    """The buffers of one worker, grown to the largest that it has needed.

    Attributes:
        nbytes_read: Bytes that were read through it since they were last asked for.
        rows: The stored bytes of all of a step's sources, (sources, nbytes), where they are in memory already.
    """

    def __init__(self, rows: Callable[[Step], Bytes | None] = lambda step: None) -> None:
        self._buffers: dict[str, Bytes] = {}
        self.nbytes_read = 0
        self.rows = rows

    def taken(self) -> int:
        """Bytes read since the last call."""
        nbytes, self.nbytes_read = self.nbytes_read, 0
        return nbytes

    def bytes(self, name: str, nbytes: int) -> Bytes:
        """A buffer; its contents last until the same name is asked for again."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < nbytes:
            buffer = self._buffers[name] = np.empty(nbytes, np.uint8)
        return buffer[:nbytes]

    def floats(self, name: str, *shape: int) -> Tile:
        """A C-contiguous float32 array: kernels are compiled for that layout alone."""
        return self.bytes(name, 4 * math.prod(shape)).view(np.float32).reshape(shape)
