"""Merge into memory: no files, the same engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..planning import Plan, Step
from .schedule.stages import Finish, grouped
from .schedule.threads import Scheduler
from .session.in_place import Direct, Place
from .session.input_cache import Resident
from .session.pass_cache import Remembered
from .session.sorted_deltas import Ranks
from .step.chunks import Span
from .step.device import device_of
from .step.inputs import Workspace
from .step.masks import without_masks
from .step.merge import Merger, Sink, prepare


class _Arrays(Sink):
    """A sink of NumPy arrays."""

    def __init__(self, plan: Plan) -> None:
        self._bytes = {(s.file, s.out.name): np.empty(s.out.nbytes, np.uint8) for s in plan.steps}

    def write(self, step: Step, start: int, data: Any) -> None:
        begin = start * step.out.dtype.itemsize
        self._bytes[step.file, step.out.name][begin : begin + len(data)] = data

    def done(self, span: Span, out: bytes, reads: Sequence[bytes]) -> None:
        pass

    def array(self, step: Step) -> Any:
        return self._bytes[step.file, step.out.name].view(step.out.dtype.numpy).reshape(step.out.shape)


def run_in_memory(
    plan: Plan,
    *,
    workers: int = 1,
    tile: int | None = None,
    tick: Callable[[], None] = lambda: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Carry out a plan and return the merged tensors.

    Args:
        plan: What to do.
        workers: Threads.
        tile: Entries that are merged at a time (default: as fit the cache); the result does not depend on it.
        tick: Called a few times a second.
        device: Where whole matrices are merged: `cpu`, `cuda` or `auto`.

    Returns:
        NumPy arrays by name (with ml_dtypes where NumPy has no such dtype); heads under `heads/<model>/<name>`.
        Masks are for files, and left out.

    Raises:
        SettingError: there is no such device.
    """
    plan = without_masks(plan)
    arrays = _Arrays(plan)
    groups = grouped(prepare(plan, workers, device_of(device)), Merger(arrays, None, tile), lambda span: True)
    Scheduler(groups, workers).run(tick)
    return {_name(step): arrays.array(step) for step in plan.steps}


@dataclass(frozen=True)
class Shortcuts:
    """What merges one after another may do beside remembering.

    Attributes:
        inputs: The inputs, in memory.
        ranks: Their deltas, sorted.
        place: Where a tensor may be merged to without going through the sink.
    """

    inputs: Resident
    ranks: Ranks
    place: Place


def merge_into(
    sink: Sink, plan: Plan, remembered: Remembered, *, workers: int = 1, shortcuts: Shortcuts | None = None
) -> list[Step]:
    """Carry out a plan into a sink, without what an earlier plan of the same models has found out or merged.

    Args:
        sink: What takes the tensors; what it was given for an earlier plan is there still.
        plan: What to do, without masks.
        remembered: Of the earlier plans, the last of which went into the same sink; it takes in this one.
        workers: Threads.
        shortcuts: Of the earlier plans too; they change no byte.

    Returns:
        The steps whose tensors were merged or copied; the others are as they were.

    Raises:
        NotFinite: an input or the result holds NaN or infinity.
    """
    prepared = prepare(plan, workers)
    changed = remembered.changed(prepared)
    remembered.forget(changed)  # until they are all there: a merge that fails leaves some of them
    finish: Finish = Merger(sink, None)
    space = Workspace
    if shortcuts is not None:
        shortcuts.ranks.answer(prepared)
        finish, space = Direct(shortcuts.place, shortcuts.inputs, finish), partial(Workspace, shortcuts.inputs.rows)
    groups = grouped(prepared, finish, lambda span: id(span.prepared) in changed)
    Scheduler(groups, workers, space=space).run()
    remembered.keep(changed)
    return [one.step for one in changed.values()]


def _name(step: Step) -> str:
    return step.out.name if step.file is None else f"{step.file.removesuffix('.safetensors')}/{step.out.name}"
