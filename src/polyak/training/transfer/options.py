"""The settings of a cross-lingual run, and the names of its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .._rates import Rate, constant, cosine, linear, warmed
from .._setup import Setup

Head: TypeAlias = Literal["frozen", "own"]
Schedule: TypeAlias = Literal["constant", "linear", "cosine"]
FewShot: TypeAlias = Literal["none", "mixed", "in_turn"]
Unseen: TypeAlias = Literal["refuse", "count"]
Keep: TypeAlias = Literal["all", "result"]

START, FULL, TOGETHER, MODEL = "start", "full", "together", "model"
_RATES = {"constant": constant, "linear": linear, "cosine": cosine}


@dataclass(frozen=True)
class Run:
    """One fine-tuning.

    Attributes:
        name: Its unit.
        rate: Peak learning rate.
        schedule: Course of the learning rate after the warm-up.
        seed: Seed of the order of examples, of dropout, and of its head if it has its own.
        index: Number of the seed, from 1; runs with the same index differ in their hyperparameters only.
    """

    name: str
    rate: float
    schedule: Schedule
    seed: int
    index: int

    @property
    def configuration(self) -> str:
        """Its hyperparameters."""
        return f"learning rate {self.rate:g}, {self.schedule}"


@dataclass(frozen=True)
class Options:
    """The settings of the recipe.

    Attributes:
        setup: The common keys.
        targets: The task of each target language.
        runs: The fine-tunings.
        heads: Regular expression for the tensors of the head.
        head: `frozen`: all runs share the head of a full run; `own`: each trains its own.
        freeze: Regular expression for other tensors that are not trained.
        snapshots: Checkpoints per epoch.
        warmup: Share of the steps in which the learning rate rises.
        floor: Share of the best score on the source below which a checkpoint is not averaged.
        last: Checkpoints in LAWA.
        decay: Decay of EMA per checkpoint.
        penalty: Penalty factor of MWA.
        curve: Decay curve of WSM.
        few_shot: Training on a few examples of the targets.
        shots: Examples per target.
        few_shot_epochs: Epochs of it.
        vaccinate: With gradient vaccination.
        unseen: Treatment of labels that the source's training examples lack.
        keep: Weights that stay on disk.
        examples: Training examples of the source.
    """

    setup: Setup
    targets: Mapping[str, Any]
    runs: tuple[Run, ...]
    heads: str
    head: Head
    freeze: str
    snapshots: int
    warmup: float
    floor: float
    last: int
    decay: float
    penalty: float
    curve: str
    few_shot: FewShot
    shots: int
    few_shot_epochs: float
    vaccinate: bool
    unseen: Unseen
    keep: Keep
    examples: int

    @property
    def steps(self) -> int:
        """Steps of a fine-tuning."""
        return self.setup.steps(self.setup.epochs, self.examples)

    def snapshot_steps(self, steps: int, epochs: float) -> list[int]:
        """The steps after which checkpoints are kept: at equal fractions of every epoch, and at the end."""
        parts = max(1, round(epochs * self.snapshots))
        return sorted({max(1, round(steps * i / parts)) for i in range(1, parts + 1)})

    def rate(self, schedule: Schedule, steps: int) -> Rate:
        """Factor of the learning rate: a linear rise, and then the schedule."""
        rising = round(self.warmup * steps)
        return warmed(_RATES[schedule](steps - rising), rising)

    def setup_of(self, run: Run, snapshots: list[int]) -> Setup:
        """The common keys with the learning rate of a run; each checkpoint has a loss of its own."""
        gaps = [b - a for a, b in zip([0, *snapshots], snapshots, strict=False)]
        how = replace(self.setup.how, learning_rate=run.rate)
        return replace(self.setup, how=how, log_every=min(self.setup.log_every, *gaps))


def judged(run: str) -> str:
    """The unit that scores the strategies of a run."""
    return f"scores.{run}"


def tuned(run: str, language: str = "") -> str:
    """The unit that trains on a few examples of the targets, or of one of them."""
    return f"few.{run}.{language}" if language else f"few.{run}"


def model_in(folder: Path) -> Path:
    """The model in the folder of a unit."""
    return folder / MODEL
