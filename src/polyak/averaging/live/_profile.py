"""The weights that an average gives to the weights after each training step, from its schedule alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import Mismatch
from ._declaration import LIVE, Average, Moment


def profile(average: Average, steps: int, *, samples: int = 1, **options: Any) -> NDArray[np.float64]:
    """Coefficients of theta_0 ... theta_steps in an average, theta_t the weights after step t.

    The value of an averager after these steps is this linear combination, in exact arithmetic.

    Args:
        average: Such as `live.ema(0.9)`.
        steps: Number of training steps.
        samples: Training examples per step.
        **options: Those with which the average is read, such as `width=0.1` of `posthoc_ema`.

    Raises:
        Mismatch: there is no update within these steps.
    """
    schedule = average.schedule
    copies = np.zeros((schedule.slots, steps + 1))
    identity, updates, last = np.eye(steps + 1), 0, schedule.start
    copies[list(schedule.initial), min(schedule.start, steps)] = 1.0
    for step in filter(schedule.is_due, range(1, steps + 1)):
        elapsed = step - last
        for slot, amount in schedule.update(Moment(updates, step, elapsed, elapsed * samples)).items():
            copies[slot] += amount * (identity[step] - copies[slot])
        updates, last = updates + 1, step
    if not updates:
        raise Mismatch(f"the average {average.name!r} has no update within {steps} steps.")
    mix = schedule.value(Moment(updates, steps, steps - last, (steps - last) * samples), **options)
    return np.sum([c * (identity[steps] if slot == LIVE else copies[slot]) for slot, c in mix.items()], axis=0)
