"""Exponential moving average that regularly replaces the weights (Switch EMA)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from ...declare import In
from ._declaration import Moment, Schedule, average


@average(
    "switch_ema", source="Li et al., 2024. Switch EMA: a free lunch for better flatness and sharpness. arXiv:2402.09240"
)
def switch_ema(
    decay: Annotated[float, In(0, 1)] = 0.999,
    *,
    switch_every: Annotated[int, In(1, math.inf)],
    every: Annotated[int, In(1, math.inf)] = 1,
    start: Annotated[int, In(0, math.inf)] = 0,
) -> Schedule:
    """Exponential moving average that replaces the weights of the model after every epoch (Switch EMA).

    a_n = decay a_(n-1) + (1 - decay) theta_n, a_1 = theta_1; after every `switch_every` steps, theta <- a_n.

    Args:
        decay: Per update.
        switch_every: Steps between replacements; in the paper, one epoch.
        every: Update at every N-th step.
        start: Step after which updates and replacements begin.

    Source: Li et al., 2024, arXiv:2402.09240.

    Departures: epochs are counted in steps. The state of the optimizer is left alone.
    """

    def update(moment: Moment) -> Mapping[int, float]:
        return {0: 1 - decay if moment.updates else 1.0}

    def switches(step: int) -> bool:
        return step > start and (step - start) % switch_every == 0

    return Schedule(update, every=every, start=start, switches=switches)
