"""The settings of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..recipe import Recipe
from ..tasks import Scorer
from .results import Tried
from .scoring import Examples

Progress = Callable[[Tried], None]
Tasks = Sequence[Scorer] | Callable[[], Sequence[Scorer]]


@dataclass(frozen=True)
class Search:
    """Settings of a search.

    Attributes:
        recipe: Recipe with `search:` values.
        tasks: Tasks to score on, or a function that builds them, which other processes can call.
        study: File of the study.
        sampler: `tpe`, `cma-es`, `nsga-ii` or `random`.
        objective: The `mean` of the tasks' metrics, or `each`.
        experts: Score of a task's expert, by the task's name.
        examples: Selection of examples.
        seed: Seed of the sampler.
        pruning: Stop candidates early that score badly on a quarter or a half of the examples.
        memory: Bytes of the models to cache.
        workers: Worker threads of a merge.
    """

    recipe: Recipe
    tasks: Tasks
    study: Path
    sampler: str = "tpe"
    objective: str = "mean"
    experts: Mapping[str, float] = field(default_factory=dict[str, float])
    examples: Examples = field(default_factory=Examples)
    seed: int = 0
    pruning: bool = False
    memory: int = 2**62
    workers: int = 1
