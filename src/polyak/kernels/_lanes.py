"""Sums that vector code can keep: entries are added to lanes, each apart, and the lanes to one another at the end."""

from __future__ import annotations

from typing import Any

from ..native import inlined

LANES = 128


@inlined
def total(lanes: Any) -> Any:
    """The sum of the lanes, a power of two of them, by halves; they are overwritten."""
    half = lanes.size // 2
    while half >= 1:
        for i in range(half):
            lanes[i] += lanes[half + i]
        half //= 2
    return lanes[0]
