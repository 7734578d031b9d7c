"""NearSwap: towards another model, by a step of limited length."""

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
    """Take the model's entries where they are near the base's, and go a step of a fixed length towards the others.

    theta_0 + min(1, t / |tau|) tau: each entry's delta, clipped to [-t, t].

    Departures:
        mergekit divides by at least 1e-6, so that a t below 1e-6 has less effect there on deltas below 1e-6.

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
