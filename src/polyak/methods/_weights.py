"""Conditions on weights that several methods share."""

from __future__ import annotations


def has_a_sum(weight: tuple[float, ...], normalize: bool) -> str | None:
    """Refuse weights that sum to zero where the result is divided by their sum."""
    if normalize and sum(weight) == 0:
        return f"the weights {list(weight)} sum to zero, so they cannot be normalised. Set `normalize: false`."
    return None


def is_some(weight: tuple[float, ...]) -> str | None:
    """Refuse weights of which none is above zero."""
    return None if max(weight) > 0 else f"the weights {list(weight)} are all zero, so there is no average."
