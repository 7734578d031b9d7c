"""Sliding window with the weights of a learning-rate decay (WSM)."""

from __future__ import annotations

import math
from typing import Annotated

from ...declare import In
from ..decay import curve_of, curve_weights
from ._declaration import Schedule, average
from ._window import window


@average("wsm", source="WSM: decay-free learning rate schedule via checkpoint merging, 2025. arXiv:2507.17634")
def wsm(
    curve: str = "1-sqrt",
    *,
    window_length: Annotated[int, In(1, math.inf)] = 12,
    every: Annotated[int, In(1, math.inf)] = 1,
    start: Annotated[int, In(0, math.inf)] = 0,
) -> Schedule:
    """Average of the latest weights that imitates a decay of the learning rate (WSM).

    a_n = sum_j c_j theta_(n-K+1+j), j = 0 ... K - 1, c_j = f(j / K) - f((j + 1) / K): by `curve_weights`, it is the
    result of scaling the updates between the terms by f(1 / K), f(2 / K) ... Fewer terms while n < K.

    Args:
        curve: f, from f(0) = 1 to f(1) = 0. linear: 1 - x, which is the uniform average; 1-sqrt: 1 - sqrt(x); cosine:
            (1 + cos(pi x)) / 2; or a file with learning rates, as `polyak.averaging.curve_of` reads it.
        window_length: K. The average keeps K copies of the weights.
        every: Distance of the terms, steps.
        start: Step after which the window begins to fill.

    Source: arXiv:2507.17634, 2025.

    Departures: the curve is sampled at equal distances, for any K; the learning rate is left to the training loop.
    """
    curve_of(curve)  # an unknown one is refused before training
    return window(window_length, lambda terms: curve_weights(terms, curve), every=every, start=start)
