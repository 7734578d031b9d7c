"""Weight ensemble of ZSCL: the mean of the start and of the weights at every I-th step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from ...declare import In
from ._declaration import Moment, Schedule, average


@average("zscl", source="Zheng et al., 2023. Preventing zero-shot transfer degradation (ZSCL). ICCV. arXiv:2303.06628")
def zscl(every: Annotated[int, In(1, math.inf)] = 100, *, start: Annotated[int, In(0, math.inf)] = 0) -> Schedule:
    """Mean of the weights at the start of a task and at every I-th step (ZSCL's weight ensemble).

    a_n = (n a_(n-1) + theta) / (n + 1) with a_0 = theta at the start, at the steps 1, I + 1, 2 I + 1 ... after it.

    Args:
        every: I; 100 in task-incremental training, 10 in class-incremental training.
        start: Step at which the task starts.

    Source: Zheng et al., 2023, arXiv:2303.06628, and the authors' code, which counts iterations from 0.

    Departures: a task ends with the training loop: load the average into the model, and make a new averager.
    """

    def update(moment: Moment) -> Mapping[int, float]:
        return {0: 1 / (moment.updates + 2)}

    return Schedule(update, every=every, start=start, phase=1, initial=(0,))
