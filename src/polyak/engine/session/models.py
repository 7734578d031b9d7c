"""Models that stay open from one merge to the next, with their tensors in memory as far as a budget allows."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import recipe as recipes
from ...checkpoint import Bytes, Checkpoint
from ...planning import open_source
from ...recipe import Source
from ..nested import Readers
from .input_cache import InputCache


class OpenModels:
    """Opens the sources of recipes once; pass it to `planning.plan` as `opening`.

    Attributes:
        tensors: The models' tensors, as they are stored.

    Args of the constructor:
        memory: Bytes of tensors to keep.
        workers: Threads.
        nested_change: Plan nested merges again each time they are asked for, since their settings differ between
            recipes; otherwise they are merged once (default).
    """

    def __init__(self, memory: int, workers: int, *, nested_change: bool = False) -> None:
        self._budget, self._workers, self._nested_change = _Budget(memory), workers, nested_change
        self.tensors = InputCache(lambda one: one.read_whole if isinstance(one, _Cached) else None, self._budget.take)
        self._open: dict[tuple[Any, ...], Checkpoint] = {}

    def __call__(self, source: Source | None, folder: Path) -> Checkpoint:
        """The checkpoint of a source, whose paths are relative to `folder`."""
        if source is None or (source.recipe is not None and self._nested_change):
            return open_source(source, folder)
        nested = recipes.digest(source.recipe) if source.recipe else None
        key = replace(source, recipe=None), nested, folder
        if key not in self._open:
            self._open[key] = _Cached(Readers(self._workers)(open_source(source, folder)), self._budget)
        return self._open[key]


@dataclass
class _Budget:
    """Bytes that may still be kept."""

    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, nbytes: int) -> bool:
        """Reserve bytes; False if there are too few. A negative number gives some back."""
        with self.lock:
            if nbytes > self.left:
                return False
            self.left -= nbytes
            return True


class _Cached(Checkpoint):
    """A checkpoint whose tensors are read once and kept as delivered: an adapter, say, is applied once."""

    def __init__(self, source: Checkpoint, budget: _Budget) -> None:
        self._source, self._budget = source, budget
        self.label, self.specs, self.ties, self.metadata = source.label, source.specs, source.ties, source.metadata
        self.folder, self.stamps = source.folder, source.stamps
        self._tensors: dict[str, Bytes | None] = {}
        self._lock = threading.Lock()

    def read_whole(self, name: str, out: Bytes) -> None:
        """Read a whole tensor that the caller keeps."""
        with self._lock:
            kept = self._tensors.get(name)
        if kept is None:
            self._source.read_into(name, 0, self.specs[name].numel, out)
        else:
            out[:] = kept

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        kept = self._tensors[name] if name in self._tensors else self._keep(name)
        if kept is None:
            self._source.read_into(name, start, stop, out)
        else:
            size = self.specs[name].dtype.itemsize
            out[:] = kept[start * size : stop * size]

    def _keep(self, name: str) -> Bytes | None:
        with self._lock:
            if name not in self._tensors:
                spec = self.specs[name]
                kept: Bytes | None = np.empty(spec.nbytes, np.uint8) if self._budget.take(spec.nbytes) else None
                if kept is not None:
                    self._source.read_into(name, 0, spec.numel, kept)
                self._tensors[name] = kept
        return self._tensors[name]
