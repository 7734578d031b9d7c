"""Weights of a run's checkpoints: numbers that sum to 1, in the order of the checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from types import MappingProxyType
from typing import Literal

from ..errors import SettingError, suggestion

Form = Literal["shift", "power", "minmax", "softmax", "rank"]
FLOOR = 0.05  # weight of the worst checkpoint in `minmax` where the best has 1, so that none is dropped


@dataclass(frozen=True)
class Weighting:
    """Weights of checkpoints.

    Attributes:
        by: `uniform`, `ema` (decaying exponentially with age), `ema-raw` (the same as a running average that starts at
            the oldest checkpoint), `decay` (as a decay of the learning rate), `posthoc-ema` (a power of the step), or a
            metric: `step`, `loss`, `eval_accuracy` ...
        form: Weighting function of the metric; one of `BY_METRIC`.
        penalty: Strength of the metric weighting; its meaning depends on the form.
        decay: For `ema` and `ema-raw`: factor by which a checkpoint's weight decays per newer checkpoint.
        higher_is_better: Direction of the metric; None to take it from the name.
        curve: For `decay`: `linear`, `1-sqrt`, `cosine`, or a file with learning rates.
        width: For `posthoc-ema`: standard deviation of the profile relative to the length of the run.
    """

    by: str = "uniform"
    form: Form = "shift"
    penalty: float = 0.7
    decay: float = 0.9
    higher_is_better: bool | None = None
    curve: str = ""
    width: float = 0.0


def exponential(count: int, decay: float, *, normalised: bool = True) -> list[float]:
    """Weights that fall exponentially with the age of `count` checkpoints, oldest first; they sum to 1.

    Normalised over the window: w_i = (1 - decay) decay^(n - 1 - i) / (1 - decay^n), i = 0 ... n - 1.
    Otherwise those of a running average that starts at the oldest checkpoint and moves by 1 - decay towards each newer
    one: w_i = (1 - decay) decay^(n - 1 - i), but w_0 = decay^(n - 1), which for few checkpoints is the largest.

    Raises:
        SettingError: the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise SettingError(f"the decay of an exponential average must be in [0, 1); got {decay!r}.")
    if normalised:
        return [(1 - decay) * decay ** (count - 1 - i) / (1 - decay**count) for i in range(count)]
    later = [(1 - decay) * decay ** (count - 1 - i) for i in range(1, count)]
    return [decay ** (count - 1), *later]


def by_metric(values: Sequence[float], form: str, penalty: float, *, higher_is_better: bool) -> list[float]:
    """Weights that grow with the quality of a checkpoint's metric (metrics-weighted averaging, MWA).

    The paper's formula was not available: these are reconstructions from its description, in which a single penalty
    controls the preference for better checkpoints, with the best values between 0.5 and 1.
    With m = value where higher is better, 1 / value where lower is, and w = u / sum(u):

    - shift: u = m - penalty * min(m).  0 weights by m itself; 1 drops the worst checkpoint; a little above 1 gives
      it a small negative weight.
    - power: u = m ** penalty.  0 is uniform; infinity is the best checkpoint.  The losses of one run differ little, so
      it is nearly uniform for them.
    - minmax: u = (x + 0.05) ** penalty, x = m scaled to [0, 1] linearly in the values.
    - softmax: u = exp(penalty * x), x = the values less their mean, over their standard deviation, signed.
    - rank: u = (1 - penalty) ** r, r = 0 for the best; equal values share the better rank.

    Equal values give equal weights.

    Args:
        values: One per checkpoint.
        form: One of `BY_METRIC`.
        penalty: As above.
        higher_is_better: Direction of the metric.

    Raises:
        SettingError: unknown form, a value that is not finite or not positive where its inverse or power is taken, or
            weights that sum to zero.

    Source: Yu and Choi, 2025. Metrics-weighted averaging of checkpoints. arXiv:2504.18580 (reconstructed)
    """
    if form not in BY_METRIC:
        raise SettingError(f"unknown weighting {form!r}. {suggestion(form, BY_METRIC)}")
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
            f"this weighting uses powers or inverses, so metrics must be positive; one is {min(values):g}. "
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
        raise SettingError(f"the penalty of the weighting 'rank' must be in [0, 1]; got {penalty:g}.")
    ordered = sorted(values, reverse=higher)
    return [(1 - penalty) ** ordered.index(value) for value in values]


BY_METRIC: Mapping[str, Callable[[Sequence[float], float, bool], list[float]]] = MappingProxyType(
    {"shift": _shift, "power": _power, "minmax": _minmax, "softmax": _softmax, "rank": _rank}
)
