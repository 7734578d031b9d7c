"""Detection of collapse: entropy is smallest if a model predicts one class for every example."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from ._api import Numbers

WINDOW = 10  # steps over which predictions are counted
SHARE = 0.1  # of the largest entropy so far; predictions have collapsed below it


class Collapse:
    """Tracks the histogram of predicted classes of each task.

    The entropy of the histogram over the last steps is compared with the largest so far.

    Attributes:
        is_healthy: True if no task's predictions had collapsed in the last step alone.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks, self._recent = tasks, [deque[Numbers](maxlen=WINDOW) for _ in tasks]
        self._largest = [0.0] * len(tasks)
        self.is_healthy = True

    def update(self, predictions: Sequence[Numbers]) -> str | None:
        """Add the histograms of a step; returns the name of a task that has collapsed, or None."""
        collapsed: str | None = None
        self.is_healthy = True
        for i, (recent, counts) in enumerate(zip(self._recent, predictions, strict=True)):
            recent.append(counts)
            entropy = _entropy(sum(recent, np.zeros(1)))
            self._largest[i] = max(self._largest[i], entropy)
            self.is_healthy &= _entropy(counts) >= SHARE * self._largest[i]
            if len(recent) == WINDOW and entropy < SHARE * self._largest[i]:
                collapsed = self._tasks[i]
        return collapsed

    @property
    def always_one(self) -> list[str]:
        """Tasks for which every prediction so far was the same class."""
        return [task for task, largest in zip(self._tasks, self._largest, strict=True) if largest == 0]


def _entropy(counts: Numbers) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0
