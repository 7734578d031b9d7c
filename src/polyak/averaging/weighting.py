"""Weights of a run's checkpoints.  Each function returns numbers that sum to 1, in the order it was given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from types import MappingProxyType
from typing import Literal

from ..errors import SettingError, suggestion

Form = Literal["shift", "power", "minmax", "softmax", "rank"]
FLOOR = 0.05  # what `minmax` gives the worst checkpoint, of the best one's 1, so that none is lost


@dataclass(frozen=True)
class Weighting:
    """How checkpoints are weighted.

    Attributes:
        by: `uniform`, `ema` (exponentially less with age), or the name of a metric: `step`, `loss`, `eval_accuracy` ...
        form: From metrics to weights; one of `BY_METRIC`.
        penalty: How strongly the metric speaks; its meaning depends on the form.
        decay: For `ema`: what a checkpoint's weight is multiplied by with each newer one.
        higher_is_better: Whether more of the metric is better; None where its name says so.
    """

    by: str = "uniform"
    form: Form = "shift"
    penalty: float = 0.7
    decay: float = 0.9
    higher_is_better: bool | None = None


def exponential(count: int, decay: float) -> list[float]:
    """Weights of an exponential moving average over `count` checkpoints, oldest first.

    The average begins with the oldest checkpoint and moves by a share 1 - decay towards each newer one, so
    w_i = (1 - decay) decay^(n - 1 - i), and w_0 = decay^(n - 1).

    Raises:
        SettingError: the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise SettingError(f"the decay of an exponential average lies in [0, 1); got {decay!r}.")
    later = [(1 - decay) * decay ** (count - 1 - i) for i in range(1, count)]
    return [decay ** (count - 1), *later]


def by_metric(values: Sequence[float], form: str, penalty: float, *, higher_is_better: bool) -> list[float]:
    """Weights that grow with how good a checkpoint's metric is (metrics-weighted averaging, MWA).

    The paper's formula could not be read by us: these are reconstructions of what is known of it, that one number,
    the penalty, steers how much better checkpoints count, and that the paper's best values of it lie in 0.5 to 1.
    With m = value where higher is better, 1 / value where lower is, and w = u / sum(u):

    - shift: u = m - penalty * min(m).  0 weights by m itself; 1 drops the worst checkpoint; a little above 1 gives
      it a small negative weight.
    - power: u = m ** penalty.  0 is uniform; infinity is the best checkpoint.  Losses of one run differ little, so
      this is nearly uniform for them.
    - minmax: u = (x + 0.05) ** penalty, x = m scaled to [0, 1] linearly in the values.
    - softmax: u = exp(penalty * x), x = the values less their mean, over their standard deviation, signed.
    - rank: u = (1 - penalty) ** r, r = 0 for the best; equal values share the better rank.

    Equal values give equal weights.

    Args:
        values: One a checkpoint.
        form: One of `BY_METRIC`.
        penalty: As above.
        higher_is_better: Whether more is better.

    Raises:
        SettingError: the form is unknown, a value is not finite or not above zero where its inverse or power is
            taken, or the weights would sum to nothing.

    Source: Yu and Choi, 2025. Metrics-weighted averaging of checkpoints. arXiv:2504.18580 (reconstructed)
    """
    if form not in BY_METRIC:
        raise SettingError(f"there is no weighting {form!r}. {suggestion(form, BY_METRIC)}")
    if not all(map(math.isfinite, values)):
        raise SettingError(f"a metric must be a finite number for every checkpoint; got {list(values)}.")
    if len(set(values)) <= 1:
        return [1 / len(values)] * len(values)
    shares = BY_METRIC[form](values, penalty, higher_is_better)
    total = sum(shares)
    if not total > 0:
        raise SettingError(f"the weighting {form!r} with penalty {penalty:g} leaves weights that sum to {total:g}.")
    return [share / total for share in shares]


def _merits(values: Sequence[float], higher: bool) -> list[float]:
    if min(values) <= 0:
        raise SettingError(
            f"this weighting takes powers or inverses, so metrics must be above zero; one is {min(values):g}. "
            "Use minmax, softmax or rank."
        )
    return [value if higher else 1 / value for value in values]


def _shift(values: Sequence[float], penalty: float, higher: bool) -> list[float]:
    merits = _merits(values, higher)
    return [merit - penalty * min(merits) for merit in merits]


def _power(values: Sequence[float], penalty: float, higher: bool) -> list[float]:
    merits = _merits(values, higher)
    return [(merit / max(merits)) ** penalty for merit in merits]


def _minmax(values: Sequence[float], penalty: float, higher: bool) -> list[float]:
    low, high = min(values), max(values)
    scaled = [(value - low) / (high - low) for value in values]
    return [((x if higher else 1 - x) + FLOOR) ** penalty for x in scaled]


def _softmax(values: Sequence[float], penalty: float, higher: bool) -> list[float]:
    mean, deviation, sign = fmean(values), pstdev(values), 1 if higher else -1
    powers = [penalty * sign * (value - mean) / deviation for value in values]
    return [math.exp(power - max(powers)) for power in powers]


def _rank(values: Sequence[float], penalty: float, higher: bool) -> list[float]:
    if not 0 <= penalty <= 1:
        raise SettingError(f"the penalty of the weighting 'rank' lies between 0 and 1; got {penalty:g}.")
    ordered = sorted(values, reverse=higher)
    return [(1 - penalty) ** ordered.index(value) for value in values]


BY_METRIC: Mapping[str, Callable[[Sequence[float], float, bool], list[float]]] = MappingProxyType(
    {"shift": _shift, "power": _power, "minmax": _minmax, "softmax": _softmax, "rank": _rank}
)
