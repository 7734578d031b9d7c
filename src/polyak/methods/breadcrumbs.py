"""Model breadcrumbs: drop what is largest and what is smallest, and add up the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from ._api import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, method
from ._passes import Cut, Sum, Top
from ._sparsify import before_and_after, norm_kept, trimmed, where
from ._weights import has_a_sum

Scope: TypeAlias = Literal["row", "tensor"]
Rescale: TypeAlias = Literal["none", "l1"]


def _outliers(density: tuple[float, ...], gamma: tuple[float, ...], granularity: Scope) -> Top | None:
    def count(entries: int) -> list[int]:
        return [_counts(entries, *shares)[0] for shares in zip(density, gamma, strict=True)]

    return Top(count, scope=granularity) if max(gamma) > 0 else None


def _kept(density: tuple[float, ...], gamma: tuple[float, ...], granularity: Scope) -> Top | None:
    def count(entries: int) -> list[int]:
        return [sum(_counts(entries, *shares)) for shares in zip(density, gamma, strict=True)]

    return Top(count, scope=granularity) if min(density) < 1 else None


def _counts(entries: int, density: float, gamma: float) -> tuple[int, int]:
    """How many are outliers, and how many are kept. Where both do not fit, fewer are outliers."""
    keep = max(1, int(density * entries))
    return min(int(gamma * entries), entries - keep), keep


def _norms(rescale: Rescale) -> Sum | None:
    return Sum(_before_and_after, fused=_norms_of_tile) if rescale == "l1" else None


def _before_and_after(deltas: Array, outliers: Cut | None, kept: Cut | None) -> Array:
    return before_and_after(deltas, _between(deltas, outliers, kept))


@method(
    "breadcrumbs",
    source="Davari and Belilovsky, 2024. Model Breadcrumbs. arXiv:2312.06795",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def breadcrumbs(
    deltas: Deltas,
    outliers: Annotated[Cut | None, FirstPass(_outliers)],
    kept: Annotated[Cut | None, FirstPass(_kept)],
    norms: Annotated[Array | None, FirstPass(_norms)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.2, In(0, 1, above=True))],
    gamma: Annotated[Array, PerModel(0.1, In(0, 1))],
    granularity: Scope = "row",
    rescale: Rescale = "none",
    normalize: bool = False,
    scale: float = 1.0,
) -> Delta:
    """Drop the largest entries of each delta, keep the next largest, drop the rest, and add the weighted deltas.

    sparse_i = tau_i where |tau_i| is behind the int(gamma n) largest of n entries and among the max(1, int(d n))
    that follow, else 0;
    tau = scale * sum_i w_i sparse_i; with `normalize`, divided by sum_i w_i.

    The authors' code keeps int(d n), which is nothing in rows of fewer than 1 / d entries. Where int(gamma n) and
    the kept exceed n, fewer count as outliers (mergekit; the authors' code keeps fewer instead): a density of 1
    keeps everything. Among equal magnitudes the lowest index counts as the largest.

    Args:
        deltas: (k, *shape).
        outliers: Which entries are too large.
        kept: Which entries are outliers or large enough to stay.
        norms: L1 norms of the deltas before and after.
        weight: Weight of each model; may be negative.
        density: Share that each model keeps: the authors' beta.
        gamma: Share of each model's largest entries that are dropped; mergekit has 0.01.
        granularity: Over what the entries compete: each `row` (last dimension) as in the authors' code, or the
            whole `tensor` (paper, mergekit).
        rescale: `l1` restores each tensor's L1 norm; `none`.
        normalize: Divide by the sum of the weights.
        scale: The paper's alpha; the authors suggest 0.4.
    """
    xp = array_namespace(deltas)
    sparse = _between(deltas, outliers, kept)
    if norms is not None:
        sparse = sparse * norm_kept(norms, weight)
    total = scale * xp.sum(weight * sparse, axis=0)
    return total / xp.sum(weight) if normalize else total


def _between(deltas: Array, outliers: Cut | None, kept: Cut | None) -> Array:
    sparse = trimmed(deltas, kept)
    return sparse if outliers is None else where(~outliers.keeps(deltas), sparse)


breadcrumbs.requires(has_a_sum)


def _norms_of_tile(deltas: Any, outliers: Cut | None, kept: Cut | None) -> Any:
    import numpy as np

    from ..kernels.sparsify import magnitudes

    before = magnitudes(deltas)
    _cut_tile(deltas, outliers, kept)
    return np.concatenate([before, magnitudes(deltas)])


def _cut_tile(deltas: Any, outliers: Cut | None, kept: Cut | None) -> None:
    from ..kernels.sparsify import shave, trim

    if kept is not None:
        trim(deltas, kept.value, kept.last, kept.row, kept.start)
    if outliers is not None:
        shave(deltas, outliers.value, outliers.last, outliers.row, outliers.start)


@breadcrumbs.fused
def _fused(
    out: Any,
    deltas: Any,
    outliers: Cut | None,
    kept: Cut | None,
    norms: Any,
    *,
    weight: Any,
    density: Any,
    gamma: Any,
    granularity: Scope,
    rescale: Rescale,
    normalize: bool,
    scale: float,
) -> None:
    from ..kernels.combine import weighted_sum

    _cut_tile(deltas, outliers, kept)
    rescaled = weight if norms is None else weight * norm_kept(norms, weight)
    weighted_sum(out, deltas, rescaled, scale / weight.sum() if normalize else scale)
