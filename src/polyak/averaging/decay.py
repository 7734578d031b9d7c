"""Weights of checkpoints as synthetic learning-rate decays: any non-negative weights are one, and back.

With checkpoints theta_0 ... theta_k and updates u_i = theta_i - theta_(i-1), an average sum_j c_j theta_j with
sum_j c_j = 1 is theta_0 + sum_i w_i u_i, where w_i = sum_(j >= i) c_j: the end of a run whose updates are scaled by
w_i.

Source: WSM, 2025. arXiv:2507.17634
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args

from ..errors import SettingError, suggestion

Curve = Literal["linear", "1-sqrt", "cosine"]

_CURVES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda x: 1 - x,
        "1-sqrt": lambda x: 1 - math.sqrt(x),
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    }
)


def curve_weights(count: int, curve: str) -> list[float]:
    """Weights of `count` checkpoints, oldest first, that amount to a decay along a curve.

    c_j = f(j / count) - f((j + 1) / count), with f(0) = 1 and f(1) = 0; they sum to 1.

    Raises:
        SettingError: unknown curve, or no checkpoints.
    """
    if curve not in _CURVES:
        raise SettingError(f"unknown decay curve {curve!r}. {suggestion(curve, get_args(Curve))}")
    if count < 1:
        raise SettingError(f"a decay needs at least one checkpoint; got {count}.")
    values = [1.0, *(_CURVES[curve](j / count) for j in range(1, count)), 0.0]
    return [values[j] - values[j + 1] for j in range(count)]


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
