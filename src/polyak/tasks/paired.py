"""Paired bootstrap intervals of means, differences and ratios of scores on the same examples.

Examples are resampled together with the scores of all models, so that the difficulty of an example cancels in a
difference. Percentile intervals (Efron, 1979); the same seed gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK = 4_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Interval:
    """A number and its bootstrap interval.

    Attributes:
        value: The number on the examples themselves.
        low: Lower end; None if there are too few examples, or a ratio is not defined.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def ends(self, form: str, *, absent: str = "-") -> str:
        """`low to high` in a format such as `.4f`; `absent` without ends."""
        return absent if self.low is None or self.high is None else f"{self.low:{form}} to {self.high:{form}}"

    def excludes(self, number: float) -> bool:
        """True if the interval exists and does not contain a number."""
        return self.low is not None and self.high is not None and not self.low <= number <= self.high


@dataclass(frozen=True)
class Bootstrap:
    """Settings of bootstrap intervals.

    Attributes:
        resamples: Number of resamples.
        level: Share of resamples inside the interval.
        seed: Seed of the draws, combined with the task's name.
    """

    resamples: int = RESAMPLES
    level: float = LEVEL
    seed: int = 0


def weighted_means(scores: Numbers, weights: Numbers) -> Numbers:
    """Weighted means of the rows of (models, n), with weights (n,); NaN if all weights are 0."""
    with np.errstate(invalid="ignore"):
        return scores @ weights / weights.sum()


def resampled_means(
    scores: Numbers, weights: Numbers, *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> npt.NDArray[np.float64]:
    """Weighted means over resampled examples, (models, resamples): each column is one resample for all models.

    The mean of a resample in which all weights are 0 is NaN.

    Args:
        scores: (models, n), one score per model and example.
        weights: (n,), weight of each example, or (models, n) where the weights depend on the model.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    products = np.vstack([scores * weights, weights]).T
    sums = np.concatenate([counts @ products for counts in _draws(scores.shape[1], resamples, seed)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[:, : len(scores)] / sums[:, len(scores) :]).T


def _draws(n: int, resamples: int, seed: int | Sequence[int]) -> Iterator[Numbers]:
    """Counts of each example in each resample, in chunks."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n, size=(rows, n))
        drawn += n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def interval(value: float, draws: Numbers, *, level: float = LEVEL) -> Interval:
    """The percentile interval of draws; no ends if a draw is not finite.

    Args:
        value: The statistic on the examples themselves.
        draws: The statistic on each resample.
        level: Share of draws inside the interval.
    """
    if not len(draws) or not np.isfinite(draws).all():
        return Interval(float(value))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def sign_test(differences: Numbers) -> float:
    """Two-sided exact sign test: p value of wins and losses if both are equally likely.

    Args:
        differences: One per example; zeros do not count.
    """
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    n = wins + losses
    if n == 0:
        return 1.0
    tail = [lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2) for k in range(min(wins, losses) + 1)]
    return min(1.0, 2 * sum(map(exp, tail)))


def average(parts: Sequence[tuple[float, Numbers]]) -> tuple[float, Numbers]:
    """The mean over tasks of statistics and of their draws; tasks are resampled independently."""
    values, draws = zip(*parts, strict=True)
    return float(np.mean(values)), np.mean(draws, axis=0)
