"""Exponential moving average without its lag (BEMA)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from ...declare import In
from ._declaration import LIVE, Moment, Schedule, average


@average(
    "bema", source="Block and Zhang, 2025. EMA without the lag: bias-corrected iterate averaging. arXiv:2508.00180"
)
def bema(
    ema_power: Annotated[float, In(0, math.inf)] = 0.5,
    *,
    bias_power: Annotated[float, In(0, math.inf)] = 0.2,
    lag: Annotated[float, In(1, math.inf)] = 10.0,
    multiplier: Annotated[float, In(0, math.inf)] = 1.0,
    every: Annotated[int, In(1, math.inf)] = 1,
    start: Annotated[int, In(0, math.inf)] = 0,
) -> Schedule:
    """Exponential moving average whose lag behind the weights is corrected (BEMA).

    mu <- (1 - beta_t) mu + beta_t theta_t, beta_t = (lag + multiplier t) ** -ema_power; the average is
    mu + alpha_t (theta_t - theta_0), alpha_t = (lag + multiplier t) ** -bias_power, t the steps since `start`.
    mu starts at theta_0, the weights at `start`. It keeps two copies of the weights, mu and theta_0.

    Args:
        ema_power: kappa; 0 copies the weights.
        bias_power: eta; larger values correct less. With infinity in its place, the average would be mu.
        lag: rho.
        multiplier: gamma; 0 keeps beta and alpha constant.
        every: Update mu at every N-th step; 400 in the authors' implementation.
        start: Step after which updates begin, tau.

    Source: Block and Zhang, 2025, arXiv:2508.00180.

    Departures: between updates, theta_t and t are those of the moment at which the average is read.
    """

    def update(moment: Moment) -> Mapping[int, float]:
        return {0: _scale(moment, ema_power)}

    def value(moment: Moment) -> Mapping[int, float]:
        alpha = _scale(moment, bias_power)
        return {0: 1.0, LIVE: alpha, 1: -alpha}

    def _scale(moment: Moment, power: float) -> float:
        return (lag + multiplier * (moment.step - start)) ** -power

    return Schedule(update, value, slots=2, every=every, start=start, initial=(0, 1))
