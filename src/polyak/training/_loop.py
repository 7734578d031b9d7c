"""The training loop of all recipes: the Trainer of transformers, for any module and any task."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SettingError
from ..runs import Desk
from ._rates import Rate
from ._setup import Setup

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerCallback

    from ..checkpoint import Checkpoint
    from ..modules import LiveModel


@dataclass(frozen=True)
class Fit:
    """One training within a unit.

    Attributes:
        steps: Number of steps.
        seed: Seed of the order of examples and of dropout.
        rate: Factor of the learning rate at each step; None keeps it.
        masks: 0 and 1 by tensor name: where 0, weights are 0 and stay so.
        snapshots: Steps after which the model is written to `checkpoint-STEP` in the unit's folder.
        callbacks: Callbacks of the Trainer, such as `averager.for_transformers()`.
    """

    steps: int
    seed: int
    rate: Rate | None = None
    masks: dict[str, Tensor] | None = None
    snapshots: Sequence[int] = ()
    callbacks: Sequence[TrainerCallback] = ()


def fit(desk: Desk, setup: Setup, live: LiveModel, source: Checkpoint, how: Fit) -> float:
    """Train a live module on the task's split `train`, in place.

    The same module, setup and `how` give the same weights, bit for bit on the CPU, also if the unit was killed and
    continues from a checkpoint. Random states of the caller are restored at the end.

    Args:
        desk: That of the unit: its folder takes checkpoints and metrics, its watcher progress.
        setup: Task, optimiser, and how often something is kept.
        live: The module.
        source: The checkpoint that it was made from.
        how: Steps, seed, schedule, masks and callbacks.

    Returns:
        The mean loss over the last logged steps.

    Raises:
        UnitFailed: a loss or a weight is not finite.
        SettingError: transformers or accelerate is not installed.
    """
    try:
        from ._trainer import trained
    except ImportError as error:
        raise SettingError(
            f"training needs torch, transformers and accelerate ({error}): pip install 'polyak[training]'"
        ) from None
    with _random_states():
        return trained(desk, setup, live, source, how)


@contextmanager
def _random_states() -> Generator[None]:
    """Restore the global random states, which the Trainer seeds."""
    import torch

    python, numpy_state, state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_rng_state(state)
