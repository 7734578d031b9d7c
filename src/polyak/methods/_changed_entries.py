"""Detection of changed entries, for ram and ramplus_tl."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from ._passes import Array


def active(deltas: Array, epsilon: float) -> Array:
    """Mask of entries that changed by more than epsilon: booleans (k, *shape).

    Epsilon is rounded to the dtype of the task vectors, so that a float32 kernel compares with the same number.
    """
    xp = array_namespace(deltas)
    return xp.abs(deltas) > xp.asarray(epsilon, dtype=deltas.dtype)


def merged_where_active(out: Any, deltas: Any, epsilon: float, alone: Any) -> None:
    """Write the mean of a tile's active deltas, or the only active one times its model's number of `alone`."""
    import numpy as np

    from ..kernels.changed_entries import mean_of_active

    mean_of_active(out, deltas, np.float32(epsilon), np.asarray(alone, np.float32))
