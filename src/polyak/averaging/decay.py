"""Weights of checkpoints as synthetic learning-rate decays: any non-negative weights are one, and back.

With checkpoints theta_0 ... theta_k and updates u_i = theta_i - theta_(i-1), an average sum_j c_j theta_j with
sum_j c_j = 1 is theta_0 + sum_i w_i u_i, where w_i = sum_(j >= i) c_j: the end of a run whose updates are scaled by
w_i.

Source: WSM, 2025. arXiv:2507.17634
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from ..errors import SettingError, suggestion
from ..storage import read_regular

Curve = Literal["linear", "1-sqrt", "cosine"]

_CURVES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda x: 1 - x,
        "1-sqrt": lambda x: 1 - math.sqrt(x),
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    }
)


_LARGEST = 1 << 20  # bytes of a file with a curve


def curve_weights(count: int, curve: str) -> list[float]:
    """Weights of `count` checkpoints, oldest first, that amount to a decay along a curve.

    c_j = f(j / count) - f((j + 1) / count), with f(0) = 1 and f(1) = 0; they sum to 1.

    Args:
        count: Number of checkpoints.
        curve: `linear`, `1-sqrt`, `cosine`, or a file as `curve_of` reads it.

    Raises:
        SettingError: unknown curve, or no checkpoints.
    """
    f = curve_of(curve)
    if count < 1:
        raise SettingError(f"a decay needs at least one checkpoint; got {count}.")
    values = [1.0, *(f(j / count) for j in range(1, count)), 0.0]
    return [values[j] - values[j + 1] for j in range(count)]


def curve_of(curve: str) -> Callable[[float], float]:
    """A decay curve f on [0, 1], f(0) = 1, by its name or from a file.

    A file holds the learning rate from the start of the decay to its end, at equal distances: two numbers or more that
    never grow, separated by blanks, commas or line ends. They are divided by the first and interpolated linearly.

    Raises:
        SettingError: there is neither such a curve nor such a file, or the file holds something else.
    """
    if curve in _CURVES:
        return _CURVES[curve]
    path = Path(curve)
    if not path.is_file():
        raise SettingError(
            f"unknown decay curve {curve!r}, and no file of this name. {suggestion(curve, get_args(Curve))}"
        )
    rates = _rates(path)

    def interpolated(x: float) -> float:
        at = min(int(x * (len(rates) - 1)), len(rates) - 2)
        return rates[at] + (rates[at + 1] - rates[at]) * (x * (len(rates) - 1) - at)

    return interpolated


def _rates(path: Path) -> list[float]:
    try:
        rates = [float(word) for word in read_regular(path, _LARGEST).decode().replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} is not a decay curve, which is a list of learning rates: {error}.") from None
    falls = all(0 <= later <= rate < math.inf for rate, later in pairwise(rates))
    if len(rates) < 2 or not falls or not rates[0] > 0:
        raise SettingError(
            f"{path} is not a decay curve: it must hold two learning rates or more, the first above 0, that never grow."
        )
    return [rate / rates[0] for rate in rates]


def implied_decay(weights: Sequence[float]) -> list[float]:
    """The scale of each update between checkpoints that weights amount to: w_i = sum_(j >= i) c_j, i = 1 ... k.

    Args:
        weights: Weights of the checkpoints, oldest first; they sum to 1.
    """
    scales, total = list[float](), 0.0
    for weight in reversed(weights[1:]):
        total += weight
        scales.append(total)
    return scales[::-1]


def weights_of_decay(scales: Sequence[float]) -> list[float]:
    """The inverse of `implied_decay`: c_0 = 1 - w_1, c_j = w_j - w_(j+1), c_k = w_k."""
    padded = [1.0, *scales, 0.0]
    return [padded[j] - padded[j + 1] for j in range(len(padded) - 1)]
