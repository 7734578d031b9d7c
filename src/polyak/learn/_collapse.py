"""Notice that a model has begun to answer everything alike, which is what makes entropy smallest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from ._api import Numbers

WINDOW = 10  # steps over which predictions are counted
SHARE = 0.1  # of the entropy of what was predicted at first, below which predictions have collapsed


class Collapse:
    """Watches the classes that each task's predictions fall into.

    The entropy of their histogram over the last steps is compared with that of the first ones.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks, self._recent = tasks, [deque[Numbers](maxlen=WINDOW) for _ in tasks]
        self._first: list[float] | None = None

    def seen(self, predictions: Sequence[Numbers]) -> str | None:
        """Take the histograms of a step; the name of a task that has collapsed, if one has."""
        for recent, counts in zip(self._recent, predictions, strict=True):
            recent.append(counts)
        if len(self._recent[0]) < WINDOW:
            return None
        now = [_entropy(sum(recent, np.zeros(1))) for recent in self._recent]
        if self._first is None:
            self._first = now
        for task, entropy, first in zip(self._tasks, now, self._first, strict=True):
            if entropy < SHARE * first:
                return task
        return None

    @property
    def always_one(self) -> list[str]:
        """Tasks of which everything was one class from the beginning."""
        return [] if self._first is None else [t for t, e in zip(self._tasks, self._first, strict=True) if e == 0]


def _entropy(counts: Numbers) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0
