"""One average of an averager: its copies of the weights, and its counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import DeclarationError, Mismatch, SettingError
from ._arithmetic import Tensors, combined
from ._declaration import LIVE, Average, Moment

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COUNTERS = ("updates", "steps", "samples")


class Kept:
    """An average while a model trains.

    Copies are made when they are first written: a window that is half full holds half of its copies.

    Attributes:
        average: Its declaration and settings.
        copies: The copies that exist, by number.
        updates: Updates so far.
        steps: Training steps since the last update.
        samples: Training examples since the last update.
    """

    def __init__(self, average: Average, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        self.average, self._device, self._dtype = average, device, dtype
        self.copies: dict[int, list[Tensor]] = {}
        self.updates = self.steps = self.samples = 0

    def begin(self, weights: Tensors) -> None:
        """Take the weights at the start into the copies that hold them."""
        for slot in self.average.schedule.initial:
            for copy, weight in zip(self._copy(slot, weights), weights, strict=True):
                copy.copy_(weight)

    def moves(self, step: int, weights: Tensors) -> dict[tuple[str, int], tuple[Tensors, float]]:
        """The copies that an update at this step changes, each with its amount, by average and number of the copy.

        Raises:
            DeclarationError: the schedule names a copy that it does not have.
        """
        amounts = self.average.schedule.update(self.moment(step))
        self._refuse_unknown(amounts)
        name = self.average.name
        return {(name, slot): (self._copy(slot, weights), amount) for slot, amount in amounts.items() if amount}

    def moment(self, step: int) -> Moment:
        """The counters, for the schedule."""
        return Moment(self.updates, step, self.steps, self.samples)

    def folded(self) -> None:
        """Count an update."""
        self.updates, self.steps, self.samples = self.updates + 1, 0, 0

    def coefficients(self, step: int, options: Mapping[str, Any]) -> dict[int, float]:
        """The average as a linear combination of copies and `LIVE`.

        Raises:
            Mismatch: there was no update yet.
            SettingError: an option that the schedule does not have.
        """
        name, schedule = self.average.name, self.average.schedule
        if not self.updates:
            raise Mismatch(
                f"the average {name!r} has had no update yet: the first is at step {schedule.start + schedule.every} "
                f"or before, and the averager has counted {max(step, 0)}. Call `step()` after each step of the "
                "optimizer."
            )
        mix = dict(_with_options(schedule.value, self.moment(step), options, name))
        self._refuse_unknown({slot: c for slot, c in mix.items() if slot != LIVE})
        return {slot: coefficient for slot, coefficient in mix.items() if coefficient}

    def facts(self, step: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data for the provenance."""
        own = _with_options(self.average.schedule.facts, self.moment(step), options, self.average.name)
        return {
            "name": self.average.name,
            "kind": self.average.kind,
            "settings": dict(self.average.settings),
            "step": step,
            "updates": self.updates,
            **own,
        }

    def value(self, index: int, mix: Mapping[int, float], live: Tensor) -> Tensor:
        """One tensor of the average; a copy itself where it is the average."""
        terms = [(live if slot == LIVE else self.copies[slot][index], each) for slot, each in mix.items()]
        return combined(terms)

    def _copy(self, slot: int, weights: Tensors) -> list[Tensor]:
        """A copy, made on first use; it follows the model to another device unless it has one of its own."""
        if slot not in self.copies:
            self.copies[slot] = self.like(weights)
        if self._device is None:
            self.copies[slot] = [copy.to(w.device) for copy, w in zip(self.copies[slot], weights, strict=True)]
        return self.copies[slot]

    def like(self, weights: Tensors) -> list[Tensor]:
        """New tensors, zero, in the dtype and on the device in which the average is kept."""
        import torch

        return [
            torch.zeros_like(weight, dtype=self.dtype_of(weight), device=self._device, requires_grad=False)
            for weight in weights
        ]

    def dtype_of(self, weight: Tensor) -> torch.dtype:
        """The dtype of a copy: 16-bit weights are averaged in float32, since small steps are lost in 16 bits."""
        import torch

        return self._dtype or (weight.dtype if weight.dtype.itemsize >= torch.float32.itemsize else torch.float32)

    def device_of(self, weight: Tensor) -> torch.device:
        """The device of a copy."""
        import torch

        return weight.device if self._device is None else torch.device(self._device)

    def _refuse_unknown(self, slots: Mapping[int, float]) -> None:
        count, kind = self.average.schedule.slots, self.average.kind
        for slot in slots:
            if not 0 <= slot < count:
                raise DeclarationError(
                    f"average {kind!r} names copy {slot}; it declares {count}, from 0 to {count - 1}."
                )


def _with_options(fn: Any, moment: Moment, options: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    import inspect

    try:
        inspect.signature(fn).bind(moment, **options)
    except TypeError as error:
        raise SettingError(f"the average {name!r} cannot be read with {dict(options)}: {error}.") from None
    return fn(moment, **options)
