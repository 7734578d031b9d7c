"""Choices of singular directions as text: ranges of their numbers, from 0 for the largest singular value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from ..linalg import Array

ALL_DIRECTIONS, NO_DIRECTIONS = "all", "none"
RANGES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def direction_numbers(text: str) -> Iterable[int]:
    """The numbers that ranges stand for."""
    for part in () if text == NO_DIRECTIONS else text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def direction_ranges(chosen: Array) -> str:
    """The text for a choice, given as something true or false for each direction, largest singular value first."""
    flags = [bool(flag) for flag in chosen]
    if all(flags):
        return ALL_DIRECTIONS
    parts: list[str] = []
    for is_kept, run in groupby(range(len(flags)), key=flags.__getitem__):
        numbers = list(run)
        if is_kept:
            parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(parts) or NO_DIRECTIONS
