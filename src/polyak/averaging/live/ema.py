"""Exponential moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from ...declare import In
from ._declaration import Moment, Schedule, average


@average("ema", source="Polyak and Juditsky, 1992. Acceleration of stochastic approximation by averaging")
def ema(
    decay: Annotated[float, In(0, 1)] = 0.999,
    *,
    half_life: Annotated[float, In(0, math.inf)] = 0.0,
    half_life_in: Literal["steps", "samples"] = "steps",
    warmup: Literal[False, True, "timm", "ema-pytorch"] = False,
    inv_gamma: Annotated[float, In(0, math.inf, above=True)] = 1.0,
    power: Annotated[float, In(0, math.inf, above=True)] = 2 / 3,
    min_decay: Annotated[float, In(0, 1)] = 0.0,
    every: Annotated[int, In(1, math.inf)] = 1,
    start: Annotated[int, In(0, math.inf)] = 0,
) -> Schedule:
    """Exponential moving average of the weights, with an optional warm-up of the decay.

    a_n = d_n a_(n-1) + (1 - d_n) theta_n, n = 1, 2, ...; d_1 = 0: the average starts at the first weights that it
    sees. Without warm-up, d_n = decay, and the weights of the terms are those of `polyak.averaging.exponential`.

    Args:
        decay: d, per update.
        half_life: Steps or samples after which the weight of a term has halved; replaces `decay` unless 0.
            d_n = 2 ** (-k / half_life), k the number of steps or samples since the last update.
        half_life_in: Unit of `half_life`.
        warmup: True or `timm`: d_n = min(d, 1 - (1 + (n - 1) / inv_gamma) ** -power), at least `min_decay`.
            `ema-pytorch`: the same with the number of training steps since `start`, less 1, in place of n - 1.
        inv_gamma: Length of the warm-up.
        power: Exponent of the warm-up; 2/3 reaches 0.999 after about 31600 updates, 3/4 after 10000.
        min_decay: Lower bound of the decay during warm-up.
        every: Update at every N-th step.
        start: Step after which updates begin.

    Source: Polyak and Juditsky, 1992. The warm-up formulas are those of timm 1.0 (ModelEmaV3) and of ema-pytorch 0.8.

    Departures: timm and ema-pytorch copy the weights at their first update, and so does this, with or without warm-up.
        ema-pytorch also copies them until its `update_after_step`: here there is no average before `start`; and with
        N in `update_every` it updates at steps 1, N + 1, 2 N + 1 ..., not N, 2 N ... Half-lives count what has passed
        since the last update.
    """

    def update(moment: Moment) -> Mapping[int, float]:
        if not moment.updates:
            return {0: 1.0}
        elapsed = moment.samples if half_life_in == "samples" else moment.steps
        bound = 2 ** (-elapsed / half_life) if half_life else decay
        if warmup:
            n = moment.step - start - 1 if warmup == "ema-pytorch" else moment.updates
            bound = max(min(bound, 1 - (1 + n / inv_gamma) ** -power), min_decay)
        return {0: 1 - bound}

    return Schedule(update, every=every, start=start)
