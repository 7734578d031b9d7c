"""What competes for the largest places: the deltas, or what a request makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...methods._passes import Top, call
from ..step.chunks import Span
from ..step.evaluate import definition_supply, sources_for, twin_supply
from ..step.inputs import Workspace


class Competing:
    """What competes in a span: the deltas, or what a request makes of them."""

    def __init__(self, span: Span, request: Top, space: Workspace) -> None:
        self._of, self._fused, self._prepared = request.of, request.fused, span.prepared
        self._sources = sources_for(span.prepared, span.stop, space, request.fused or request.of)

    @property
    def shift(self) -> int | None:
        """Not None where the deltas can be taken from the stored numbers, without a row of float32."""
        return self._sources.shift if self._of is None else None

    def stored(self, start: int) -> Iterator[tuple[int, Any]]:
        return self._sources.windows(start)

    def values(self, start: int, stop: int) -> Any:
        loaded = self._sources.load(start, stop)
        if self._of is None:
            return loaded.deltas
        if self._fused is not None:
            return call(self._fused, twin_supply(self._prepared, loaded, start, stop))
        return np.ascontiguousarray(call(self._of, definition_supply(self._prepared, loaded, start, stop)), np.float32)
