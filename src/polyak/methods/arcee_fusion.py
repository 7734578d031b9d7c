"""Arcee Fusion: take the important entries of one model."""

from __future__ import annotations

import math
from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, KernelCall, Law, method
from ._passes import Cut, Parts, Rows, Sum, Top

_SMOOTHING = 1e-8  # added to every probability
_FENCE = 1.5  # interquartile ranges above the median: Tukey's fence


def _divergence() -> Sum:
    return Sum(_terms_of_divergence, scope="row", kernel=_divergence_of_rows, of_parts=_divergence_of_parts)


def _terms_of_divergence(tensors: Array, base: Array) -> Array:
    """Contribution of each entry to KL(softmax(model's row) || softmax(base's row))."""
    xp = array_namespace(tensors)
    model, ground = _softmax(tensors) + _SMOOTHING, _softmax(base[None, ...]) + _SMOOTHING
    return model * xp.log(model / ground)


def _softmax(rows: Array) -> Array:
    xp = array_namespace(rows)
    wide = xp.astype(rows, xp.float64)
    powers = xp.exp(wide - xp.max(wide, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def _quartiles() -> Top:
    def count(entries: int) -> list[int]:
        return [entries - int(share * (entries - 1)) for share in (0.25, 0.5, 0.75)]

    return Top(count, ties="all", of=_importance, kernel=_importance_of_tile)


@method(
    "arcee_fusion",
    source="Goddard et al., 2024. Arcee's MergeKit. arXiv:2403.13257",
    models=(1, 1),
    laws={Law.ELEMENTWISE},
)
def arcee_fusion(
    deltas: Deltas,
    divergence: Annotated[Rows, FirstPass(_divergence)],
    quartiles: Annotated[Cut, FirstPass(_quartiles)],
) -> Delta:
    """Take the most important entries of the model, in the rows that changed most, and keep the base elsewhere.

    tau_i where importance_i >= median + 1.5 (third - first quartile) of the importances of the tensor, else 0;
    importance_i = |tau_i| KL(softmax(theta_row) || softmax(theta_0,row)), the rows taken as if they were logits and
    1e-8 added to every probability.

    Quartiles are the importances at the places int(q (n - 1)) of all n in ascending order, and zero where that is the
    first place (in fewer than five entries).

    Departures:
        mergekit estimates the quartiles from a random million entries and computes the divergences in float32, where
        those of similar models are mostly rounding errors; with fewer than five entries it uses the minimum importance
        as the first quartile.

    Args:
        deltas: (1, *shape).
        divergence: The divergence of each row (last dimension).
        quartiles: The quartiles of the importances.
    """
    xp = array_namespace(deltas)
    importance = _importance(deltas, divergence)
    return xp.where(importance >= _fence(quartiles, importance), deltas, xp.zeros_like(deltas))[0, ...]


def _importance(deltas: Array, divergence: Rows) -> Array:
    """(1, *shape)."""
    return array_namespace(deltas).abs(deltas) * divergence.spread(_sizes(divergence), deltas)


def _sizes(divergence: Rows) -> Array:
    """Divergences without the negative ones that rounding makes: (rows,)."""
    return array_namespace(divergence.value).clip(divergence.value[0, ...], 0, math.inf)


def _fence(quartiles: Cut, like: Array) -> Array:
    xp = array_namespace(like)
    value = xp.astype(xp.clip(quartiles.value[:, 0], 0, math.inf), xp.float64)
    first, median, third = (value[i] for i in range(3))
    return xp.astype(median + _FENCE * (third - first), like.dtype)


def _divergence_of_rows(tensors: Any, base: Any) -> Any:
    import numpy as np

    from ..kernels.kl_divergence import CHUNK, divergences

    out = np.empty((len(tensors), base.shape[0]))
    divergences(tensors[0], base, _SMOOTHING, out[0], np.empty((2, min(base.shape[1], CHUNK))))
    return out


def _divergence_of_parts(parts: Parts) -> list[float]:
    import numpy as np

    from ..kernels.kl_divergence import CHUNK, extent_of, sum_of_powers, sum_of_terms

    space, ends, sums = np.empty((2, CHUNK)), np.full((2, 2), (math.inf, -math.inf)), np.zeros(2)
    for (model,), base in parts():
        for end, row in zip(ends, (model, base), strict=True):
            extent_of(row, end)
    for (model,), base in parts():
        sum_of_powers(model, base, ends, sums, space)
    total = np.zeros(1)
    for (model,), base in parts():
        sum_of_terms(model, base, ends, sums, _SMOOTHING, total, space)
    return [float(total[0])]


def _importance_of_tile(deltas: Any, divergence: Rows) -> Any:
    import numpy as np

    from ..kernels.changed_entries import times_by_row

    start = divergence.start % divergence.row
    times_by_row(deltas[0], start, _sizes(divergence).astype(np.float32), divergence.row)
    return deltas


@arcee_fusion.kernel
def _kernel(divergence: Rows, quartiles: Cut) -> KernelCall:
    import numpy as np

    from ..kernels.changed_entries import keep_beyond

    sizes = _sizes(divergence).astype(np.float32)
    return KernelCall(keep_beyond, (sizes, divergence.row, float(_fence(quartiles, sizes))))
