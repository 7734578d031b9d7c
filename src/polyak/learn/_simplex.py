"""Euclidean projections onto simplices."""

from __future__ import annotations

import numpy as np

from ._api import Numbers


def projected(rows: Numbers) -> Numbers:
    """The nearest points with nonnegative entries that sum to 1, row by row, (n, k).

    With u the entries in descending order and r the last j with u_j > (sum_{i<=j} u_i - 1) / j, entries become
    max(v - (sum_{i<=r} u_i - 1) / r, 0).
    """
    ordered = -np.sort(-rows, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1
    ranks = np.arange(1, rows.shape[1] + 1)
    last = np.count_nonzero(ordered - excess / ranks > 0, axis=1)
    shift = excess[np.arange(len(rows)), last - 1] / last
    return np.maximum(rows - shift[:, None], 0)


def capped(rows: Numbers) -> Numbers:
    """The nearest points with nonnegative entries that sum to at most 1, row by row."""
    clipped = np.maximum(rows, 0)
    return np.where(clipped.sum(1, keepdims=True) <= 1, clipped, projected(rows))
