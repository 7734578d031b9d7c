"""RAM+, tensor-local: RAM with amplified unshared changes."""

from __future__ import annotations

import math
from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, In, Law, method
from ._changed_entries import active, merged_where_active
from ._passes import Sum


def _changes() -> Sum:
    return Sum(_shared_and_alone, kernel=_shared_and_alone_of_tile)


def _shared_and_alone(deltas: Array, epsilon: float) -> Array:
    """Masks of changes that each model shares with others, then of those it made alone: (2 k, *shape)."""
    xp = array_namespace(deltas)
    changed = active(deltas, epsilon)
    count = xp.sum(xp.astype(changed, xp.int64), axis=0)[None, ...]
    return xp.astype(xp.concat([changed & (count > 1), changed & (count == 1)], axis=0), deltas.dtype)


@method(
    "ramplus_tl",
    source="Yuan et al., 2026. Behavior Knowledge Merge in Reinforced Agentic Models. arXiv:2601.13572",
    laws={Law.SYMMETRIC, Law.ELEMENTWISE},
)
def ramplus_tl(
    deltas: Deltas,
    changes: Annotated[Array, FirstPass(_changes)],
    *,
    r: Annotated[float, In(0, math.inf)] = 0.1,
    alpha: Annotated[float, In(0, math.inf)] = 0.2,
    epsilon: Annotated[float, In(0, math.inf)] = 1e-5,
) -> Delta:
    """Average each entry over the models that changed it; amplify entries that a single model changed.

    An entry that several models changed gets their mean, as in `ram`; one that only model i changed gets lambda_i
    tau_i, where lambda_i = 1 + r min(alpha, rho_i), and rho_i is the number of model i's changes that are shared over
    the number that are its own: averaging weakens shared changes, so the others are amplified.

    The counts are per tensor.

    Departures:
        The paper counts changes over the whole model; this is mergekit's tensor-local variant.

    Args:
        deltas: (k, *shape).
        changes: Number of changes that each model shares with others, then of those that it alone made.
        r: Strength of the amplification.
        alpha: Upper bound of the ratio rho_i.
        epsilon: Magnitude up to which a task vector counts as no change.
    """
    xp = array_namespace(deltas)
    changed = active(deltas, epsilon)
    count = xp.sum(xp.astype(changed, deltas.dtype), axis=0)[None, ...]
    factor = xp.astype(xp.reshape(_factor(changes, r, alpha), (-1, *[1] * (deltas.ndim - 1))), deltas.dtype)
    factor = xp.where(count == 1, factor, xp.ones_like(factor)) / xp.where(count == 0, xp.ones_like(count), count)
    return xp.sum(xp.where(changed, factor * deltas, xp.zeros_like(deltas)), axis=0)


def _factor(changes: Array, r: float, alpha: float) -> Array:
    """The lambda of each model: (k,)."""
    xp = array_namespace(changes)
    k = changes.shape[0] // 2
    shared, alone = changes[:k], changes[k:]
    ratio = shared / xp.where(alone == 0, xp.ones_like(alone), alone)
    return 1 + r * xp.clip(ratio, 0, alpha)


def _shared_and_alone_of_tile(deltas: Any, epsilon: float) -> Any:
    import numpy as np

    from ..kernels.changed_entries import count_active

    counts = np.empty(2 * len(deltas))
    count_active(deltas, np.float32(epsilon), counts)
    return counts


@ramplus_tl.kernel
def _kernel(out: Any, deltas: Any, changes: Any, r: float, alpha: float, epsilon: float) -> None:
    merged_where_active(out, deltas, epsilon, _factor(changes, r, alpha))
