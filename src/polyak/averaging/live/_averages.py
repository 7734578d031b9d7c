"""The averages of an averager, and their updates."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...errors import NotFinite, SettingError, suggestion
from ._arithmetic import Tensors, not_finite
from ._best import Best, Tracker
from ._folding import Folding
from ._kept import Kept
from ._overlap import Overlap
from ._selection import Selection
from ._sharded import agreed


class Averages:
    """Averages of one selection of tensors, with the number of steps that have been counted.

    Attributes:
        selection: The tensors that are averaged.
        kept: The averages by name.
        trackers: The best values so far of some of them, by name.
        every: Only every N-th step counts.
        start: Step after which averaging begins.
        not_finite: Policy for weights with NaN or infinity.
        steps: Training steps so far.
        skipped: Steps that were left out because weights were not finite.
    """

    def __init__(
        self,
        selection: Selection,
        kept: Mapping[str, Kept],
        best: Sequence[Best] = (),
        *,
        every: int,
        start: int,
        not_finite: str,
        together: int = 1,
        threaded: bool = False,
    ) -> None:
        self.selection, self.kept, self.every, self.start = selection, kept, every, start
        self.trackers = {each.key: Tracker(each, self._kept(each.average)) for each in best}
        self.not_finite = not_finite
        self.steps = self.skipped = 0
        self._folding = Folding(together, checks=not_finite != "unchecked", is_sharded=selection.is_sharded)
        self._overlap = Overlap(self) if threaded else None
        self._started: tuple[Sequence[Kept], int] = (), 0
        self._begin_those_at_the_start()

    @property
    def now(self) -> int:
        """Steps since the start of averaging."""
        return self.steps - self.start

    def count_step(self, samples: int) -> None:
        """Count a training step, and update the averages that are due.

        Raises:
            Mismatch: the model has changed.
            NotFinite: the weights hold NaN or infinity, unless they are to be skipped.
        """
        self.wait()
        self.steps += 1
        self._begin_those_at_the_start()
        for kept in self.kept.values():
            kept.steps, kept.samples = kept.steps + 1, kept.samples + samples
        is_counted = self.now > 0 and self.now % self.every == 0
        due = [kept for kept in self.kept.values() if is_counted and kept.average.schedule.is_due(self.now)]
        if due:
            self._update(due)
        self._switch()

    def named(self, name: str) -> Kept | Tracker:
        """One average, or the best value of one.

        Raises:
            SettingError: there is none of this name.
        """
        every = {**self.kept, **self.trackers}
        if name not in every:
            raise SettingError(f"no average is called {name!r}. {suggestion(name, every)}")
        return every[name]

    def mix(self, name: str, options: Mapping[str, Any]) -> tuple[Kept | Tracker, dict[int, float]]:
        """One average, and its value as a linear combination of its copies and the live weights.

        Raises:
            Mismatch: there was no update yet.
            NotFinite: the update on the other thread met NaN or infinity.
            SettingError: no such average, or an option that it does not have.
        """
        self.settle()
        kept = self.named(name)
        return kept, kept.coefficients(self.now, options)

    def note(self, metrics: Mapping[str, float], weights: Tensors) -> None:
        """Keep averages whose metric is the best so far."""
        self.settle()
        for tracker in self.trackers.values():
            tracker.keep(metrics, self.now, weights)

    def wait(self) -> None:
        """End the update on the other thread.

        Raises:
            NotFinite: the weights held NaN or infinity, unless they are to be skipped.
        """
        if self._overlap is not None and self._overlap.is_running:
            self._finish(self._overlap.result())

    def settle(self) -> None:
        """Bring all copies up to date.

        Raises:
            NotFinite: the update on the other thread met NaN or infinity.
        """
        self.wait()
        self._folding.settle()

    def forget(self) -> None:
        """Drop updates that have begun: the copies are about to be replaced."""
        if self._overlap is not None:
            self._overlap.result()
        self._folding.forget()

    def refuse_not_finite(self, tensors: Tensors, owner: str) -> None:
        """Refuse tensors with NaN or infinity.

        Raises:
            NotFinite: naming the first.
        """
        if name := self._first_not_finite(tensors):
            raise NotFinite(f"{name!r} of {owner} holds NaN or infinity. Look for a step at which the loss diverged.")

    def _kept(self, name: str) -> Kept:
        if name not in self.kept:
            raise SettingError(f"no average is called {name!r}. {suggestion(name, self.kept)}")
        return self.kept[name]

    def _begin_those_at_the_start(self) -> None:
        starting = [
            kept
            for kept in self.kept.values()
            if kept.average.schedule.initial and kept.average.schedule.start == self.now and not kept.updates
        ]
        if starting:
            weights = self.selection.tensors()
            self.refuse_not_finite(weights, "the model")
            for kept in starting:
                kept.begin(weights)

    def _update(self, due: Sequence[Kept]) -> None:
        weights = self.selection.tensors()
        if weights[0].device.type != "cpu":
            self._folding.settle()  # copies follow a model that moves
        moves = {key: move for kept in due for key, move in kept.moves(self.now, weights).items()}
        self._started = due, self.steps
        if self._overlap is None:
            self._finish(self._folding.add(weights, moves))
        else:
            self._overlap.start(partial(self._folding.add, weights, moves))

    def _finish(self, bad: int | None) -> None:
        due, step = self._started
        if bad is not None:
            self._refuse_or_skip(list(self.selection.shapes)[bad], step)
            return
        for kept in due:
            kept.folded()

    def _refuse_or_skip(self, name: str, step: int) -> None:
        if self.not_finite == "raise":
            raise NotFinite(
                f"{name!r} holds NaN or infinity at step {step}; the averages are as they were before it. Lower "
                "the learning rate or clip gradients, or leave such steps out with not_finite='skip'."
            )
        self.skipped += 1
        warnings.warn(f"step {step} is left out of the averages: {name!r} is not finite.", stacklevel=5)

    def _switch(self) -> None:
        for kept in self.kept.values():
            if self.now > 0 and kept.updates and kept.average.schedule.switches(self.now):
                self.settle()
                mix = kept.coefficients(self.now, {})
                for i, live in enumerate(self.selection.tensors()):
                    live.copy_(kept.value(i, mix, live))

    def _first_not_finite(self, tensors: Tensors) -> str | None:
        index = not_finite(tensors)
        if self.selection.is_sharded:
            index = agreed(index)
        return None if index is None else list(self.selection.shapes)[index]
