"""MAGPRUNE, the random drop of della and della_linear: larger entries are less likely to be dropped."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from ._passes import Array, Sum
from ._sparsify import Rescale, before_and_after, norm_kept, where


def windows_fit(density: tuple[float, ...], epsilon: tuple[float, ...]) -> str | None:
    """Refuse densities whose window leaves (0, 1]; a density of 1 has none."""
    for middle, half in zip(density, epsilon, strict=True):
        if middle < 1 and not 0 < middle - half <= middle + half <= 1:
            return (
                f"density {middle:g} with epsilon {half:g} gives probabilities from {middle - half:g} to "
                f"{middle + half:g}; they must be above 0 and at most 1."
            )
    return None


def thinned(
    deltas: Array, chance: Array, norms: Array | None, density: Array, epsilon: Array, rescale: Rescale
) -> Array:
    """The deltas with zeros where chance drops them, the others rescaled."""
    keep = _keep(deltas, density, epsilon)
    sparse = where(chance < keep, deltas)
    if rescale == "inverse_keep":
        return sparse / keep
    return sparse if norms is None else sparse * norm_kept(norms, density)


def _keep(deltas: Array, density: Array, epsilon: Array) -> Array:
    """The probability of each entry, by its rank within its row (all entries with the same first index)."""
    xp = array_namespace(deltas)
    lead = deltas.shape[:2] if deltas.ndim > 2 else (deltas.shape[0], 1)
    rows = xp.reshape(xp.abs(deltas), (*lead, -1))
    n = rows.shape[2]
    rank = xp.astype(xp.argsort(xp.argsort(-rows, axis=2), axis=2), deltas.dtype)  # 0 is the largest
    middle, half = (xp.reshape(column, (-1, 1, 1)) for column in (density, epsilon))
    half = xp.where(middle == 1, xp.zeros_like(half), half) if n > 1 else xp.zeros_like(half)
    keep = (middle - half) + 2 * half * ((n - 1 - rank) / max(n - 1, 1))
    return xp.reshape(keep, deltas.shape)


def norms_when_thinned(rescale: Rescale) -> Sum | None:
    """Request the L1 norms of all task vectors, then of the thinned ones, if rescaling needs them."""
    return Sum(_norms_when_thinned, kernel=_norms_of_tile) if rescale == "l1" else None


def _norms_when_thinned(deltas: Array, chance: Array, density: Array, epsilon: Array) -> Array:
    return before_and_after(deltas, thinned(deltas, chance, None, density, epsilon, "none"))


def _norms_of_tile(deltas: Any, chance: Any, density: Any, epsilon: Any) -> Any:
    from ..kernels.sparsify import before_and_after

    thin = lambda: thin_tile(deltas, chance, None, density, epsilon, "none")  # noqa: E731
    return before_and_after(deltas.reshape(len(deltas), -1), thin)


def thin_tile(deltas: Any, chance: Any, norms: Any, density: Any, epsilon: Any, rescale: Rescale) -> Any:
    """`thinned`, in place; returns the tile flat, (k, n)."""
    import numpy as np

    from ..kernels.rank_drop import thin

    rows = deltas.shape[1] if deltas.ndim > 2 else 1
    factor = np.ones_like(density) if norms is None else norm_kept(norms, density)
    flat = deltas.reshape(len(deltas), -1)
    for delta, key, middle, half, times in zip(flat, chance.keys, density, epsilon, factor, strict=True):
        if middle < 1:
            thin(delta.reshape(rows, -1), key, chance.start, (middle, half), times, inverse=rescale == "inverse_keep")
        elif times != 1:
            np.multiply(delta, times, out=delta)
    return flat
