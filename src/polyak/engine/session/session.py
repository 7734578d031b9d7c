"""Many merges of the same models, one after another."""

from __future__ import annotations

from functools import partial

from ...planning import Plan, Step
from ..nested import opened
from ..schedule.stages import Finish, grouped
from ..schedule.threads import Scheduler
from ..step.buffers import Buffers
from ..step.masks import without_masks
from ..step.merge import Merger
from ..step.prepared import prepared_steps
from ..step.sink import Sink
from .in_place import InPlaceMerger
from .input_cache import InputCache
from .pass_cache import PassCache
from .sorted_deltas import SortedDeltas


class Session:
    """Merges plans of the same models into one sink, and computes only what differs from the plan before.

    Answers of first passes are kept where their settings stay the same, tensors whose settings did not change are not
    merged again, and inputs that are held in memory are merged in place. No byte of a result depends on any of it.

    Args of the constructor:
        sink: Destination of the tensors; it still holds what it was given for earlier plans. Masks are left out.
        inputs: The models' tensors in memory (default: they are read again for every plan).
        workers: Threads.
    """

    def __init__(self, sink: Sink, *, inputs: InputCache | None = None, workers: int = 1) -> None:
        self._sink, self._inputs, self._workers = sink, inputs, workers
        self._passes = PassCache()
        self._sorted = None if inputs is None else SortedDeltas(inputs, workers)

    def merge(self, plan: Plan) -> list[Step]:
        """Carry out a plan.

        Returns:
            The steps whose tensors were merged or copied; all other tensors are as they were.

        Raises:
            NotFinite: an input or the result holds NaN or infinity.
        """
        steps = prepared_steps(opened(without_masks(plan), self._workers))
        changed = self._passes.changed(steps)
        self._passes.forget(changed)  # until all are complete: a merge that fails leaves some of them changed
        finish: Finish = Merger(self._sink, None)
        buffers = Buffers
        if self._inputs is not None and self._sorted is not None:
            self._sorted.answer(steps)
            finish = InPlaceMerger(self._sink.place, self._inputs, finish)
            buffers = partial(Buffers, self._inputs.rows)
        groups = grouped(steps, finish, lambda chunk: id(chunk.prepared) in changed)
        Scheduler(groups, self._workers, buffers=buffers).run()
        self._passes.keep(changed)
        return [one.step for one in changed.values()]
