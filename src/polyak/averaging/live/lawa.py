"""Average of the latest weights (LAWA)."""

from __future__ import annotations

import math
from typing import Annotated

from ...declare import In
from ._declaration import Schedule, average
from ._window import window


@average(
    "lawa", source="Kaddour, 2022. Stop wasting my time! Saving days of ImageNet and BERT training. arXiv:2209.14981"
)
def lawa(
    k: Annotated[int, In(1, math.inf)] = 6,
    *,
    every: Annotated[int, In(1, math.inf)] = 1,
    start: Annotated[int, In(0, math.inf)] = 0,
) -> Schedule:
    """Average of the k latest of the weights at every N-th step (LAWA).

    a_n = (theta_n + ... + theta_(n-k+1)) / k; fewer terms while n < k.

    Args:
        k: Length of the window. The average keeps k copies of the weights.
        every: Distance of the terms, steps; in the paper, one epoch.
        start: Step after which the window begins to fill.

    Source: Kaddour, 2022, arXiv:2209.14981.

    Departures: the average exists before the window is full.
    """
    return window(k, lambda terms: [1 / terms] * terms, every=every, start=start)
