"""Sums in a fixed order that vectorises: entry i is added to lane i modulo LANES, and the lanes last."""

from __future__ import annotations

from typing import Any

from ..native import inlined

LANES = 128


@inlined
def total(lanes: Any) -> Any:
    """The sum of the lanes, whose number is a power of two, by repeated halving; they are overwritten."""
    half = lanes.size // 2
    while half >= 1:
        for i in range(half):
            lanes[i] += lanes[half + i]
        half //= 2
    return lanes[0]
