"""Averages of a sliding window: the latest copies in a ring, combined when the average is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ._declaration import Moment, Schedule


def window(length: int, weights: Callable[[int], Sequence[float]], *, every: int, start: int) -> Schedule:
    """A schedule that keeps the latest copies.

    Args:
        length: Number of copies.
        weights: From the number of terms to their weights, oldest first.
        every: An update happens at every N-th step.
        start: Step after which updates happen.
    """

    def update(moment: Moment) -> Mapping[int, float]:
        return {moment.updates % length: 1.0}

    def value(moment: Moment) -> Mapping[int, float]:
        terms = min(moment.updates, length)
        oldest = moment.updates - terms
        return {(oldest + i) % length: weight for i, weight in enumerate(weights(terms))}

    return Schedule(update, value, slots=length, every=every, start=start)
