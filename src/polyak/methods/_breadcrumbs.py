"""Selection of entries, shared by breadcrumbs and breadcrumbs_ties."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from ._passes import EVERY_TIE, Array, Cut, Sum, Top
from ._sparsify import before_and_after, trimmed, where

Scope: TypeAlias = Literal["row", "tensor"]
Rescale: TypeAlias = Literal["none", "l1"]


def ask_outliers(density: tuple[float, ...], gamma: tuple[float, ...], granularity: Scope) -> Top | None:
    """Request the threshold of each model's outliers; None without outliers."""

    def count(entries: int) -> list[int]:
        return [_counts(entries, *shares)[0] for shares in zip(density, gamma, strict=True)]

    return Top(count, scope=granularity) if max(gamma) > 0 else None


def ask_kept(density: tuple[float, ...], gamma: tuple[float, ...], granularity: Scope) -> Top | None:
    """Request the threshold below outliers and kept entries together; None if everything is kept."""

    def count(entries: int) -> list[int]:
        return [sum(_counts(entries, *shares)) for shares in zip(density, gamma, strict=True)]

    return Top(count, scope=granularity) if min(density) < 1 else None


def _counts(entries: int, density: float, gamma: float) -> tuple[int, int]:
    """Numbers of outliers and of kept entries; if both do not fit, there are fewer outliers."""
    keep = max(1, int(density * entries))
    return min(int(gamma * entries), entries - keep), keep


def ask_norms(rescale: Rescale) -> Sum | None:
    """Request the L1 norms of all task vectors, then of their kept parts, if rescaling needs them."""
    return Sum(_before_and_after, kernel=_norms_of_tile) if rescale == "l1" else None


def _before_and_after(deltas: Array, outliers: Cut | None, kept: Cut | None) -> Array:
    return before_and_after(deltas, between(deltas, outliers, kept))


def between(deltas: Array, outliers: Cut | None, kept: Cut | None) -> Array:
    """The task vectors with zeros for outliers and for small entries."""
    sparse = trimmed(deltas, kept)
    return sparse if outliers is None else where(~outliers.keeps(deltas), sparse)


def _norms_of_tile(deltas: Any, outliers: Cut | None, kept: Cut | None) -> Any:
    from ..kernels.sparsify import before_and_after

    return before_and_after(deltas, lambda: cut_tile(deltas, outliers, kept))


def cut_tile(deltas: Any, outliers: Cut | None, kept: Cut | None) -> None:
    """`between` of a tile, in place."""
    from ..kernels.sparsify import shave, trim

    if kept is not None:
        trim(deltas, kept.value, kept.last, kept.row, kept.start)
    if outliers is not None:
        shave(deltas, outliers.value, outliers.last, outliers.row, outliers.start)


def bounds(models: int, kept: Cut | None, outliers: Cut | None = None) -> tuple[Any, Any, Any, Any, int]:
    """Arguments of the loops from two cuts of whole tensors: values and last ties of each, and the row length."""
    import numpy as np

    row = next((cut.row for cut in (kept, outliers) if cut is not None), EVERY_TIE)
    rows = next((cut.value.shape[1] for cut in (kept, outliers) if cut is not None), 1)
    none: Any = np.full((models, rows), -1, np.int64)
    value, last = (np.full((models, rows), -1, np.float32), none) if kept is None else (kept.value, kept.last)
    if outliers is None:
        return value, last, np.full((models, rows), np.inf, np.float32), none, row
    return value, last, outliers.value, outliers.last, row
