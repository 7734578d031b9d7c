"""Trimming, dropping and rescaling, shared by the methods with sparse task vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace

from ._passes import Array, Cut, Sum, Top
from ._sum_call import SumCall

TopK: TypeAlias = Literal["official", "exact"]
Granularity: TypeAlias = Literal["tensor", "model"]
Rescale: TypeAlias = Literal["inverse_keep", "l1", "none"]


def survivors(
    share: tuple[float, ...],
    topk: TopK,
    granularity: Granularity,
    of: Callable[..., Array] | None = None,
) -> Top | None:
    """Request the top-k threshold of each model; None if all entries are kept.

    Args:
        share: Fraction of entries that each model keeps.
        topk: `official` keeps all that reach the (d - k)-th smallest magnitude, k + 1 entries and their ties;
            `exact` keeps max(1, k).
        granularity: Scope of the ranking.
        of: Stack to rank (default: the task vectors).
    """
    if min(share) == 1:
        return None
    extra = 1 if topk == "official" else 0
    least = 1 if topk == "exact" else 0

    def count(entries: int) -> list[int]:
        return [entries if density == 1 else max(least, int(entries * density)) + extra for density in share]

    return Top(count, scope=granularity, ties="all" if topk == "official" else "first", of=of)


def trimmed(stack: Array, kept: Cut | None) -> Array:
    """The stack with zeros where the cut keeps nothing."""
    return stack if kept is None else where(kept.keeps(stack), stack)


def dropped(deltas: Array, chance: Array, density: Array) -> Array:
    """The deltas with zeros where chance drops them."""
    return where(chance < density, deltas)


def where(mask: Array, stack: Array) -> Array:
    """The stack with zeros where the mask is false."""
    xp = array_namespace(stack)
    return xp.where(mask, stack, xp.zeros_like(stack))


def norms_when_dropped(rescale: Rescale) -> Sum | None:
    """Ask for the L1 norms of all deltas, then of all dropped deltas, where the rescaling is by them."""
    return Sum(_norms_when_dropped, kernel=_norms_kernel) if rescale == "l1" else None


def _norms_when_dropped(deltas: Array, chance: Array, density: Array) -> Array:
    return before_and_after(deltas, dropped(deltas, chance, density))


def _norms_kernel(chance: Any, density: Any) -> SumCall:
    from ..kernels.sums import sizes_when_dropped

    return SumCall(sizes_when_dropped, 2 * len(density), (chance.keys, density))


def before_and_after(deltas: Array, sparse: Array) -> Array:
    """Magnitudes whose sums are the L1 norms that `norm_kept` compares: (2 k, *shape)."""
    xp = array_namespace(deltas)
    return xp.abs(xp.concat([deltas, sparse], axis=0))


def norm_kept(norms: Array, like: Array) -> Array:
    """L1(delta) / L1(sparse delta) of each model, shaped and typed like `like`; 1 where nothing is left."""
    xp = array_namespace(norms)
    k = norms.shape[0] // 2
    before, after = norms[:k], norms[k:]
    ratio = xp.where(after == 0, xp.ones_like(after), before / xp.where(after == 0, xp.ones_like(after), after))
    return xp.astype(xp.reshape(ratio, like.shape), like.dtype)


def rescaling(rescale: Rescale, density: Array, norms: Array | None) -> Array:
    """Factor of each model's remaining entries, shaped like `density`."""
    if norms is not None:
        return norm_kept(norms, density)
    return 1 / density if rescale == "inverse_keep" else array_namespace(density).ones_like(density)
