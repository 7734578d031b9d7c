"""The models of a search: opened once, and kept in memory as far as a budget allows."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import recipe as recipes
from ..checkpoint import Checkpoint
from ..checkpoint._api import Bytes
from ..engine.session.input_cache import Resident
from ..engine.step.merge import attach
from ..planning import NestedMerge, open_source
from ..recipe import Recipe, Source, sought


@dataclass
class Budget:
    """Bytes that may still be kept; shared by all inputs of a search."""

    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, nbytes: int) -> bool:
        """Whether so many more may be kept; a negative number gives some back."""
        with self.lock:
            if nbytes > self.left:
                return False
            self.left -= nbytes
            return True


class Held(Checkpoint):
    """A checkpoint whose tensors are read once, and kept as they were delivered: an adapter is applied once."""

    def __init__(self, source: Checkpoint, budget: Budget) -> None:
        self._source, self._budget = source, budget
        self.label, self.specs, self.ties, self.metadata = source.label, source.specs, source.ties, source.metadata
        self.folder, self.stamps = source.folder, source.stamps
        self._kept: dict[str, Bytes | None] = {}
        self._lock = threading.Lock()

    def pass_on(self, name: str, out: Bytes) -> None:
        """A whole tensor that is kept elsewhere."""
        with self._lock:
            kept = self._kept.get(name)
        if kept is None:
            self._source.read_into(name, 0, self.specs[name].numel, out)
        else:
            out[:] = kept

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        kept = self._kept[name] if name in self._kept else self._keep(name)
        if kept is None:
            self._source.read_into(name, start, stop, out)
        else:
            size = self.specs[name].dtype.itemsize
            out[:] = kept[start * size : stop * size]

    def _keep(self, name: str) -> Bytes | None:
        with self._lock:
            if name not in self._kept:
                spec = self.specs[name]
                kept: Bytes | None = np.empty(spec.nbytes, np.uint8) if self._budget.take(spec.nbytes) else None
                if kept is not None:
                    self._source.read_into(name, 0, spec.numel, kept)
                self._kept[name] = kept
        return self._kept[name]


class Inputs:
    """Opens the sources of a recipe for all candidates.

    Nested merges without anything to search are merged once; those with something are planned anew each time.

    Attributes:
        resident: Their tensors, as they are stored.
        stay: Whether each is the same for all candidates.

    Args of the constructor:
        recipe: With what is to be searched.
        memory: Bytes of tensors to keep.
        workers: Threads.
    """

    def __init__(self, recipe: Recipe, memory: int, workers: int) -> None:
        self._budget, self._workers = Budget(memory), workers
        self.resident = Resident(lambda one: one.pass_on if isinstance(one, Held) else None, self._budget.take)
        self._open: dict[tuple[Any, ...], Checkpoint] = {}
        self.stay = not any(".recipe." in f".{one.place}" for one in sought(recipe))

    def __call__(self, source: Source | None, folder: Path) -> Checkpoint:
        if source is None or (source.recipe is not None and not self.stay):
            return open_source(source, folder)
        nested = recipes.digest(source.recipe) if source.recipe else None
        key = replace(source, recipe=None), nested, folder
        if key not in self._open:
            found = open_source(source, folder)
            inner: Checkpoint | None = found
            while inner is not None and not isinstance(inner, NestedMerge):
                inner = inner.inner
            if inner is not None:
                attach(inner, self._workers)
            self._open[key] = Held(found, self._budget)
        return self._open[key]
