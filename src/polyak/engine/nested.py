"""Nested merges, computed while they are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from ..checkpoint import Bytes, Checkpoint
from ..planning import NestedMerge, Plan, Read, Step, tensors_kept
from .schedule.stages import grouped
from .schedule.threads import Scheduler
from .step.buffers import Buffers, Tile
from .step.device import Device
from .step.evaluate import merged_tiles
from .step.masks import without_masks
from .step.prepared import PreparedStep, prepared_steps


def opened(plan: Plan, workers: int, device: Device | None = None) -> Plan:
    """The plan with readable checkpoints in the place of nested merges, whatever views lie on them.

    The first passes of nested merges are answered here; their tensors are merged whenever they are read.
    """
    readers = Readers(workers, device)
    models = {name: readers(model) for name, model in plan.models.items()}
    if all(models[name] is model for name, model in plan.models.items()):
        return plan
    return replace(plan, models=models, steps=tuple(_reading_from(step, readers) for step in plan.steps))


def _reading_from(step: Step, readers: Readers) -> Step:
    reads = tuple(_from(read, readers) for read in step.reads)
    return replace(step, reads=reads, base=step.base and _from(step.base, readers))


def _from(read: Read, readers: Readers) -> Read:
    return read._replace(checkpoint=readers(read.checkpoint))


class Readers:
    """Readable checkpoints in the place of nested merges; each nested merge is prepared once.

    Args of the constructor:
        workers: Threads.
        device: Device for whole-matrix merges.
    """

    def __init__(self, workers: int, device: Device | None = None) -> None:
        self._workers, self._device = workers, device
        self._readers: dict[Checkpoint, Checkpoint] = {}

    def __call__(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint itself, or one with the same tensors that can be read."""
        if checkpoint not in self._readers:
            is_nested = isinstance(checkpoint, NestedMerge)
            self._readers[checkpoint] = self._merged(checkpoint) if is_nested else checkpoint.over(self)
        return self._readers[checkpoint]

    def _merged(self, nested: NestedMerge) -> Checkpoint:
        plan = opened(without_masks(nested.plan), self._workers, self._device)
        return _Merged(nested, prepared_steps(plan, self._device), self._workers)


class _Merged(Checkpoint):
    """The result of a plan, merged while it is read; in float32, unrounded."""

    def __init__(self, nested: NestedMerge, prepared: list[PreparedStep], workers: int) -> None:
        self.label, self.folder, self.specs, self.stamps = nested.label, nested.folder, nested.specs, nested.stamps
        self._prepared = {one.step.out.name: one for one in prepared}
        self._local, self._whole_tensors = threading.local(), TensorCache(tensors_kept(workers))
        merging = [one for one in prepared if one.step.kind == "merge"]
        Scheduler(grouped(merging, None, lambda chunk: True), workers).run()

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        prepared = self._prepared[name]
        if prepared.step.kind == "merge":
            for begin, tile in self._tiles(prepared, start, stop):
                out[4 * (begin - start) : 4 * (begin - start + tile.size)] = tile.view("u1")
        else:
            source = prepared.step.reads[0]
            source.checkpoint.read_into(source.spec.name, start, stop, out)

    def _tiles(self, prepared: PreparedStep, start: int, stop: int) -> Iterator[tuple[int, Tile]]:
        if not hasattr(self._local, "buffers"):
            self._local.buffers = Buffers()
        if not prepared.step.is_whole or stop - start == prepared.step.out.numel:
            return merged_tiles(prepared, start, stop, self._local.buffers)
        whole = self._whole_tensors.get(prepared.step.out.name, partial(_whole, prepared, self._local.buffers))
        return iter([(start, whole[start:stop])])


def _whole(prepared: PreparedStep, buffers: Buffers) -> Tile:
    _, tensor = next(merged_tiles(prepared, 0, prepared.step.out.numel, buffers))
    return tensor.copy()


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tensor: Tile | None = None


class TensorCache:
    """The tensors that were asked for last; each is computed once, by whoever asks first, and the others wait.

    Args of the constructor:
        most: Maximum number of tensors to keep.
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
