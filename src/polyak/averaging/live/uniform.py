"""Uniform average of the weights (SWA)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from ...declare import In
from ._declaration import Moment, Schedule, average


@average("uniform", source="Izmailov et al., 2018. Averaging weights leads to wider optima. arXiv:1803.05407")
def uniform(start: Annotated[int, In(0, math.inf)] = 0, *, every: Annotated[int, In(1, math.inf)] = 1) -> Schedule:
    """Uniform average of the weights at every N-th step after a start (SWA).

    a_n = (theta_1 + ... + theta_n) / n, computed as a_n = a_(n-1) + (theta_n - a_(n-1)) / n.

    Args:
        start: Step after which weights are averaged; in the paper, after 75 % of the steps.
        every: Average the weights of every N-th step; in the paper, at the end of each cycle of the learning rate.

    Source: Izmailov et al., 2018, arXiv:1803.05407.

    Departures: the learning-rate schedule of the paper is left to the training loop. BatchNorm statistics are measured
        again only if the averager is told to (`buffers="remeasured"`).
    """

    def update(moment: Moment) -> Mapping[int, float]:
        return {0: 1 / (moment.updates + 1)}

    return Schedule(update, every=every, start=start)
