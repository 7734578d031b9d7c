"""Schedules of the learning rate, as factors of the peak at each step, from 0 to `steps` - 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

Rate: TypeAlias = Callable[[float], float]  # of a step, which may lie between two


def constant(steps: int) -> Rate:
    """1 at every step."""
    return lambda step: 1.0


def linear(steps: int) -> Rate:
    """From 1 at step 0 to 0 after the last: 1 - step / steps."""
    return lambda step: max(0.0, 1 - step / steps)


def cosine(steps: int, floor: float = 0.0) -> Rate:
    """floor + (1 - floor) (1 + cos(pi step / steps)) / 2."""
    return lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2


def stepped(steps: int) -> Rate:
    """1, a tenth from half of the steps on, and a hundredth from three quarters on."""
    return lambda step: 0.1 ** ((step >= steps / 2) + (step >= 3 * steps / 4))


def warmed(rate: Rate, warmup: int) -> Rate:
    """(step + 1) / (warmup + 1) of rate(0) over the first `warmup` steps, and then rate(step - warmup)."""
    return lambda step: rate(0) * (step + 1) / (warmup + 1) if step < warmup else rate(step - warmup)
