"""NearSwap: a step of limited length towards another model."""

from __future__ import annotations

import math
from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Delta, Deltas, In, Law, method


@method(
    "nearswap",
    source="alchemonaut, 2024. NearSwap, in QuartetAnemoi-70B. huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    models=(1, 1),
    laws={Law.ELEMENTWISE},
)
def nearswap(deltas: Deltas, *, t: Annotated[float, In(0, math.inf)] = 1e-4) -> Delta:
    """Move each entry of the base towards the model, by at most t.

    theta_0 + min(1, t / |tau|) tau: each entry's task vector, clipped to [-t, t].

    Departures:
        mergekit divides by at least 1e-6, so a t below 1e-6 has less effect on changes below 1e-6.

    Args:
        deltas: (1, *shape).
        t: The longest step, in the units of the weights.
    """
    xp = array_namespace(deltas)
    return xp.clip(deltas[0, ...], -t, t)


@nearswap.kernel
def _kernel(out: Any, deltas: Any, t: float) -> None:
    import numpy as np

    np.clip(deltas[0], np.float32(-t), np.float32(t), out=out)
