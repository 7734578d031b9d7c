"""The settings of a sparse soup, as units carry them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .._setup import Setup
from .schedules import ORIGINAL, Original, Retraining

if TYPE_CHECKING:
    from .._rates import Rate

Vary: TypeAlias = Literal["seed", "weight_decay", "length", "learning_rate"]
Soup: TypeAlias = Literal["uniform", "greedy"]
Keep: TypeAlias = Literal["all", "averages", "result"]
Baseline: TypeAlias = Literal["imp", "imp_long", "imp_average", "dense"]


@dataclass(frozen=True)
class Options:
    """See `sparse_soup`; `shifted` are absolute paths or functions, by name."""

    setup: Setup
    sparsity: float
    phases: int
    copies: int
    selector: str
    retrain_epochs: float
    retrain_schedule: Retraining
    schedule: Original
    vary: Vary
    values: tuple[float, ...]
    soup: Soup
    dense: str
    recalibrate: float
    baselines: tuple[Baseline, ...]
    shifted: tuple[str, ...]
    keep: Keep
    examples: int  # of the split `train`

    @property
    def original_steps(self) -> int:
        """Steps of the original, dense training."""
        return self.setup.steps(self.setup.epochs, self.examples)

    @property
    def original(self) -> Rate:
        """Its learning rate."""
        return ORIGINAL[self.schedule](self.original_steps)

    def copy(self, number: int, times: float = 1.0) -> Copy:
        """The retraining of a copy.

        Args:
            number: Its number, from 1.
            times: Factor of the length.
        """
        setup, epochs, seed = self.setup, self.retrain_epochs, self.setup.seed + 1
        if self.vary == "seed":
            seed = self.setup.seed + number
        elif self.vary == "length":
            epochs = self.values[number - 1]
        else:
            changed = {self.vary: self.values[number - 1]}
            setup = replace(setup, how=replace(setup.how, **changed))
        return Copy(setup, seed, setup.steps(times * epochs, self.examples))


@dataclass(frozen=True)
class Copy:
    """One retraining.

    Attributes:
        setup: The common keys, with what varies.
        seed: Seed of the order of examples.
        steps: Number of steps.
    """

    setup: Setup
    seed: int
    steps: int


@dataclass(frozen=True)
class Branch:
    """A chain of phases: prune, retrain copies, average, and again.

    Attributes:
        name: Its name, which its units begin with.
        copies: Numbers of its copies.
        times: Factor of the length of retraining.
        shares: Phase 1 is that of the branch `soup`, whose units do the same.
    """

    name: str
    copies: tuple[int, ...]
    times: float = 1.0
    shares: bool = False

    def pruned(self, phase: int) -> str:
        """The unit that prunes in a phase."""
        return f"{self._home(phase)}.{phase}.pruned"

    def copy(self, phase: int, number: int) -> str:
        """The unit that retrains a copy in a phase."""
        return f"{self._home(phase)}.{phase}.copy{number}"

    def average(self, phase: int) -> str:
        """The unit that averages the copies of a phase."""
        return f"{self.name}.{phase}.average"

    def before(self, phase: int) -> str:
        """The unit whose model a phase begins with."""
        return DENSE if phase == 1 else self.average(phase - 1)

    def _home(self, phase: int) -> str:
        return MAIN if self.shares and phase == 1 else self.name


MAIN, DENSE = "soup", "dense"


def model_in(folder: Path) -> Path:
    """The model in the folder of a unit."""
    from .._launch import MODEL

    return folder / MODEL
