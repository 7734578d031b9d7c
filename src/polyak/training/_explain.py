"""The units of a recipe and their cost, before anything starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..display import human_size
from ..errors import PolyakError
from ..runs import Stage
from ._declaration import Prepared
from ._models import live_model
from ._setup import TRAIN, Setup

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

Begins: TypeAlias = "Callable[[], Checkpoint] | None"
_PROBED = 3  # steps that are timed, after one that is not


@dataclass(frozen=True)
class Explanation:
    """The units of a run and their cost.

    Attributes:
        recipe: Name of the recipe.
        stages: For each stage, the names and steps of its units.
        steps: Steps of all units.
        critical_steps: Steps one after another, where enough processes do the units of a stage at the same time.
        seconds_per_step: Time of a training step here, on one thread; None if it is not known.
        nbytes: Bytes on disk at the end, about.
        peak_nbytes: Maximum of bytes on disk during the run, about.
        unknown: Why the time is not known, or empty.
        notes: Messages for the user.
    """

    recipe: str
    stages: tuple[tuple[tuple[str, int], ...], ...]
    steps: int
    critical_steps: int
    seconds_per_step: float | None
    nbytes: int
    peak_nbytes: int
    unknown: str = ""
    notes: tuple[str, ...] = ()

    def seconds(self, workers: int = 1) -> float | None:
        """Estimated time of the training steps; evaluation, merging and starting processes are not in it."""
        if self.seconds_per_step is None:
            return None
        return self.seconds_per_step * sum(_makespan([steps for _, steps in stage], workers) for stage in self.stages)

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def text(self, workers: int = 1) -> str:
        """The explanation for people."""
        lines = [
            f"{self.recipe}: {sum(map(len, self.stages))} units in {len(self.stages)} stages, {self.steps:,} steps"
        ]
        for i, stage in enumerate(self.stages):
            names = ", ".join(f"{name} ({steps:,})" if steps else name for name, steps in stage)
            lines.append(f"  {i + 1}. {names}")
        seconds = self.seconds(workers)
        if seconds is None:
            lines.append(f"time: unknown ({self.unknown})")
        else:
            lines.append(
                f"time: about {_time(seconds)} of training with {workers} worker{'s' * (workers > 1)} "
                f"({1000 * (self.seconds_per_step or 0):.3g} ms per step here, now); evaluation is not in it"
            )
        lines.append(f"disk: about {human_size(self.nbytes)} at the end, {human_size(self.peak_nbytes)} at most")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def explain(prepared: Prepared, *, measure: bool = True) -> Explanation:
    """Explain a recipe; nothing is started or written.

    Args:
        prepared: The recipe.
        measure: Time a few training steps in memory.
    """
    stages = prepared.plan.stages
    seconds, unknown = _probed(prepared.setup, prepared.plan.begins) if measure else (None, "not measured")
    nbytes, peak = _disk(stages)
    return Explanation(
        prepared.recipe.name,
        tuple(tuple((unit.name, unit.steps) for unit in stage.units) for stage in stages),
        sum(unit.steps for stage in stages for unit in stage.units),
        sum(max((unit.steps for unit in stage.units), default=0) for stage in stages),
        seconds, nbytes, peak, unknown, prepared.plan.notes,
    )  # fmt: skip


def _makespan(steps: Sequence[int], workers: int) -> int:
    """Steps one after another if units go to the first process that is free, in order."""
    busy = [0] * max(1, workers)
    for count in steps:
        busy[busy.index(min(busy))] += count
    return max(busy)


def _disk(stages: Sequence[Stage]) -> tuple[int, int]:
    kept, peak = dict[str, int](), 0
    for stage in stages:
        kept |= {unit.name: unit.nbytes for unit in stage.units}
        peak = max(peak, sum(kept.values()))
        for name in stage.removes:
            kept.pop(name, None)
    return sum(kept.values()), peak


def _probed(setup: Setup, begins: Begins) -> tuple[float | None, str]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _time_of_a_step(setup, begins), ""
    except PolyakError as error:
        return None, str(error)
    except Exception as error:  # whatever a module raises
        return None, f"a step fails: {error} ({type(error).__name__})"
    finally:
        torch.set_num_threads(threads)


def _time_of_a_step(setup: Setup, begins: Begins) -> float:
    """The fastest of a few steps, forward and backward; the optimiser is small in comparison."""
    task, times = setup.task(), list[float]()
    with (begins or setup.start)() as source:
        live = live_model(setup, source)
    examples = list(range(min(setup.how.batch_size, task.count(TRAIN))))
    live.module.train()
    for _ in range(1 + _PROBED):
        began = time.perf_counter()
        for _ in range(setup.how.accumulate):
            batch = task.batch(TRAIN, examples).to(setup.device)
            task.losses(live.module, batch).mean().backward()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
