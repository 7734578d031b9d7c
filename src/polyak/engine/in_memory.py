"""Merge into memory: no files, the same engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..planning import Plan, Step
from .nested import opened
from .schedule.stages import grouped
from .schedule.threads import Scheduler
from .step.device import device_of
from .step.masks import without_masks
from .step.merge import Merger
from .step.prepared import prepared_steps
from .step.sink import Sink


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
        plan: The plan.
        workers: Threads.
        tile: Entries merged at a time (default: as many as fit the cache); the result does not depend on it.
        tick: Called a few times per second.
        device: Device for whole-matrix merges: `cpu`, `cuda` or `auto`.

    Returns:
        NumPy arrays by name (with ml_dtypes where NumPy has no such dtype); heads under `heads/<model>/<name>`.
        Masks belong to files, and are left out.

    Raises:
        SettingError: unknown or unavailable device.
    """
    plan, torch_device = without_masks(plan), device_of(device)
    arrays = _Arrays(plan)
    steps = prepared_steps(opened(plan, workers, torch_device), torch_device)
    Scheduler(grouped(steps, Merger(arrays, None, tile), lambda chunk: True), workers).run(tick)
    return {_name(step): arrays.array(step) for step in plan.steps}


class _Arrays(Sink):
    """A sink of NumPy arrays."""

    def __init__(self, plan: Plan) -> None:
        self._bytes = {(s.file, s.out.name): np.empty(s.out.nbytes, np.uint8) for s in plan.steps}

    def write(self, step: Step, start: int, data: Any) -> None:
        begin = start * step.out.dtype.itemsize
        self._bytes[step.file, step.out.name][begin : begin + len(data)] = data

    def array(self, step: Step) -> Any:
        return self._bytes[step.file, step.out.name].view(step.out.dtype.numpy).reshape(step.out.shape)


def _name(step: Step) -> str:
    return step.out.name if step.file is None else f"{step.file.removesuffix('.safetensors')}/{step.out.name}"
