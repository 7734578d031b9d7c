"""Means over runs with their intervals, paired differences, and the spread over hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev

from ...tasks import Interval


def interval_of_mean(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean with its Student interval: mean -+ t(n - 1) s / sqrt(n); no ends for fewer than two values."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean)
    half = student(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired(ours: Mapping[str, float], theirs: Mapping[str, float], level: float = 0.95) -> Interval:
    """The mean difference over the runs that both have, with its interval.

    Raises:
        ValueError: they have no run in common.
    """
    common = [name for name in ours if name in theirs]
    if not common:
        raise ValueError("no run in common")
    return interval_of_mean([ours[name] - theirs[name] for name in common], level)


@dataclass(frozen=True)
class Spread:
    """The spread of a score over hyperparameters.

    Attributes:
        deviation: Standard deviation of the population.
        range: Largest minus smallest.
    """

    deviation: float
    range: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of scores, one per configuration."""
    return Spread(pstdev(values), max(values) - min(values))


def student(level: float, freedom: int) -> float:
    """The t with P(|T| <= t) = level, by bisection.

    With theta = atan(t / sqrt(n)), P is a finite sum for whole n (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    theta = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    if odd:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total
