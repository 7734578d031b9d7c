"""Tensors of a nested merge that must be merged whole, kept while they are read a window at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from .step.inputs import Tile


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tensor: Tile | None = None


class Kept:
    """The tensors that were asked for last; each is computed once, by whoever asks first, and the others wait.

    Args of the constructor:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def get(self, name: str, compute: Callable[[], Tile]) -> Tile:
        """The tensor of this name; `compute` makes it if it is not there."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.tensor is None:
                slot.tensor = compute()
            return slot.tensor
