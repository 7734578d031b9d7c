"""Conditions on weights that several methods share."""

from __future__ import annotations

import math

_EPSILON, _SMALLEST = 2.0**-23, 2.0**-126  # of float32, in which methods compute


def has_a_sum(weight: tuple[float, ...], normalize: bool) -> str | None:
    """Refuse weights that sum to zero where the result is divided by their sum."""
    if normalize and cancel(weight):
        return f"the weights {list(weight)} sum to zero, so they cannot be normalised. Set `normalize: false`."
    return None


def cancel(weight: tuple[float, ...]) -> bool:
    """True if the sum is only rounding error: 0.1 + 0.2 - 0.3 is 6e-17, not a number to divide by."""
    return abs(math.fsum(weight)) <= max(len(weight) * _EPSILON * sum(map(abs, weight)), _SMALLEST)


def is_some(weight: tuple[float, ...]) -> str | None:
    """Refuse weights without a positive one."""
    return None if max(weight) > 0 else f"the weights {list(weight)} are all zero, so there is no average."
