"""The values that a top-k request ranks: the task vectors, or a function of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...methods import Top, call
from ..step.buffers import Buffers
from ..step.chunks import Chunk
from ..step.evaluate import definition_supply, kernel_supply, sources_for


class RankedValues:
    """The ranked values of one chunk: its task vectors, or what the request's function makes of them."""

    def __init__(self, chunk: Chunk, request: Top, buffers: Buffers) -> None:
        self._of, self._kernel, self._prepared = request.of, request.kernel, chunk.prepared
        self._sources = sources_for(chunk.prepared, chunk.stop, buffers, request.kernel or request.of)

    @property
    def shift(self) -> int | None:
        """Not None where the deltas can be taken from the stored numbers, without a row of float32."""
        return self._sources.shift if self._of is None else None

    def stored(self, start: int) -> Iterator[tuple[int, Any]]:
        return self._sources.stored_tiles(start)

    def values(self, start: int, stop: int) -> Any:
        loaded = self._sources.load(start, stop)
        if self._of is None:
            return loaded.deltas
        if self._kernel is not None:
            return call(self._kernel, kernel_supply(self._prepared, loaded, start, stop))
        return np.ascontiguousarray(call(self._of, definition_supply(self._prepared, loaded, start, stop)), np.float32)
