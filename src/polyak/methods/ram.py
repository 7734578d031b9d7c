"""RAM: averages over the models that changed an entry."""

from __future__ import annotations

import math
from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Delta, Deltas, In, Law, method
from ._changed_entries import active, merged_where_active


@method(
    "ram",
    source="Yuan et al., 2026. Behavior Knowledge Merge in Reinforced Agentic Models. arXiv:2601.13572",
    laws={Law.SYMMETRIC, Law.ELEMENTWISE},
)
def ram(deltas: Deltas, *, epsilon: Annotated[float, In(0, math.inf)] = 1e-5) -> Delta:
    """Average each entry over the models that changed it; entries changed by a single model keep their full change.

    sum_i tau_i [|tau_i| > epsilon] / max(1, number of models with |tau_i| > epsilon).

    Designed for models fine-tuned by reinforcement learning: they change few entries, and a mean over all models would
    dilute changes made by one of them only.

    Departures:
        None known.

    Args:
        deltas: (k, *shape).
        epsilon: Magnitude up to which a task vector counts as no change.
    """
    xp = array_namespace(deltas)
    changed = active(deltas, epsilon)
    count = xp.sum(xp.astype(changed, deltas.dtype), axis=0)
    total = xp.sum(xp.where(changed, deltas, xp.zeros_like(deltas)), axis=0)
    return total / xp.where(count == 0, xp.ones_like(count), count)


@ram.kernel
def _kernel(out: Any, deltas: Any, epsilon: float) -> None:
    import numpy as np

    merged_where_active(out, deltas, epsilon, np.ones(len(deltas)))
