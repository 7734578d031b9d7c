"""Masks that recover each model from one merged task vector."""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import array_namespace

from ._passes import Array


class Masks(NamedTuple):
    """Entries of the merged task vector that belong to each model, with a scale: base + scale_i keep_i delta.

    Attributes:
        keep: Booleans, (k, *shape).
        scale: A number for each model, (k,).
    """

    keep: Array
    scale: Array

    def apply(self, delta: Array) -> Array:
        """Each model's own delta, from the merged one: (k, *shape)."""
        xp = array_namespace(delta)
        scale = xp.reshape(xp.astype(self.scale, delta.dtype), (-1, *[1] * delta.ndim))
        return scale * xp.where(self.keep, delta[None], xp.zeros_like(delta[None]))
