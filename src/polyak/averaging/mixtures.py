"""Strategies that turn the stored checkpoints of one or several runs into one model, as weights of checkpoints.

    LAST      the last checkpoint of a run
    SRC-DEV   the checkpoint with the best score on development data of the source
    TRG-DEV   the checkpoint with the best score on data of the target: an oracle, an upper bound for selecting one
    CA        the mean of the checkpoints of a run
    MWA, EMA, LAWA, WSM   weighted means of them
    RA        the mean over runs of any of these

Source: Schmidt, Vulic and Glavas, 2023. Free Lunch: Robust Cross-Lingual Transfer via Model Checkpoint Averaging.
    arXiv:2305.16834 (LAST, SRC-DEV, TRG-DEV, CA, RA)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..recipe import Recipe
from .choosing import Choice, chosen
from .decay import curve_weights
from .recipes import combined, weights_of
from .runs import RunCheckpoint
from .strategies import best_by
from .weighting import Weighting


@dataclass(frozen=True)
class Mixture:
    """One model made of checkpoints.

    Attributes:
        name: The strategy.
        members: Checkpoints and their weights, which sum to 1.
        is_oracle: It was selected by scores on the target, which are not there where the strategy is needed.
        notes: Messages for the user, such as the checkpoints that were left out.
    """

    name: str
    members: tuple[tuple[RunCheckpoint, float], ...]
    is_oracle: bool = False
    notes: tuple[str, ...] = ()


def last_checkpoint(run: Sequence[RunCheckpoint]) -> Mixture:
    """LAST."""
    return Mixture("LAST", ((_some(run)[-1], 1.0),))


def best_on_source(run: Sequence[RunCheckpoint], metric: str, *, higher_is_better: bool | None = None) -> Mixture:
    """SRC-DEV, by a metric of the checkpoints; the earliest on ties.

    Raises:
        SettingError: it was not logged for one of them, or its direction is ambiguous.
    """
    return Mixture("SRC-DEV", ((best_by(_some(run), metric, higher_is_better=higher_is_better), 1.0),))


def best_on_target(run: Sequence[RunCheckpoint], metric: str, *, higher_is_better: bool | None = None) -> Mixture:
    """TRG-DEV, by a metric of the checkpoints; marked as an oracle.

    Raises:
        SettingError: as for `best_on_source`.
    """
    return replace(best_on_source(run, metric, higher_is_better=higher_is_better), name="TRG-DEV", is_oracle=True)


def checkpoint_average(
    run: Sequence[RunCheckpoint],
    choice: Choice | None = None,
    weighting: Weighting | None = None,
    *,
    name: str = "CA",
    higher_is_better: bool | None = None,
) -> Mixture:
    """CA: theta = sum_i w_i theta_i over the checkpoints of a run that a choice leaves.

    With `Choice(dev=...)`, checkpoints whose score on the source is far below the best are left out, which the notes
    say; the paper averages all.

    Args:
        run: The checkpoints, by step.
        choice: Those that are averaged (default: all).
        weighting: Their weights (default: equal; `Weighting("ema")`: EMA; by a metric: MWA; `Choice(last=k)`: LAWA).
        name: Name of the strategy.
        higher_is_better: Direction of the choice's metric.

    Raises:
        SettingError: a setting is out of range, or a metric was not logged.
    """
    kept, notes = chosen(_some(run), choice or Choice(), higher_is_better=higher_is_better)
    weights = weights_of(kept, weighting or Weighting())
    return Mixture(name, tuple(zip(kept, weights, strict=True)), notes=tuple(notes))


def decay_average(
    run: Sequence[RunCheckpoint], curve: str, choice: Choice | None = None, *, higher_is_better: bool | None = None
) -> Mixture:
    """WSM: weights that amount to a decay of the learning rate along a curve; see `curve_weights`.

    Raises:
        SettingError: unknown curve, or as for `checkpoint_average`.
    """
    uniform = checkpoint_average(run, choice, name="WSM", higher_is_better=higher_is_better)
    kept = [checkpoint for checkpoint, _ in uniform.members]
    return replace(uniform, members=tuple(zip(kept, curve_weights(len(kept), curve), strict=True)))


def run_average(mixtures: Sequence[Mixture], name: str = "") -> Mixture:
    """RA: the mean over runs of one model each.

    It makes sense if the runs share their head, which stays fixed: the means of independent heads fail.

    Args:
        mixtures: One per run.
        name: Name of the strategy (default: `RA of` theirs).

    Raises:
        SettingError: there is none.
    """
    if not mixtures:
        raise SettingError("an average over runs needs at least one run.")
    weights: dict[str, float] = {}
    checkpoints = {str(c.path): c for mixture in mixtures for c, _ in mixture.members}
    for mixture in mixtures:
        for checkpoint, weight in mixture.members:
            key = str(checkpoint.path)
            weights[key] = weights.get(key, 0.0) + weight / len(mixtures)
    members = tuple((checkpoints[key], weight) for key, weight in weights.items())
    notes = tuple(note for mixture in mixtures for note in mixture.notes)
    is_oracle = any(mixture.is_oracle for mixture in mixtures)
    return Mixture(name or f"RA of {mixtures[0].name}", members, is_oracle, notes)


def recipe_of(mixture: Mixture) -> Recipe:
    """The recipe whose merge is the model of a mixture; one checkpoint alone stays as it is.

    Raises:
        SettingError: weights do not sum to 1.
        Mismatch: some checkpoints are adapters and others are not.
    """
    total = math.fsum(weight for _, weight in mixture.members)
    if abs(total - 1) > 1e-9:
        raise SettingError(f"the weights of {mixture.name!r} sum to {total:.12g}; they must sum to 1.")
    checkpoints = [checkpoint for checkpoint, _ in mixture.members]
    provenance: Mapping[str, Any] = {
        "learned_by": "average",
        "strategy": mixture.name,
        "steps": [checkpoint.step for checkpoint in checkpoints],
    }
    weights = [weight for _, weight in mixture.members]
    return combined(_named_apart(checkpoints), weights, provenance)


def _named_apart(checkpoints: Sequence[RunCheckpoint]) -> list[RunCheckpoint]:
    """Checkpoints of several runs have the same names: the folder of the run tells them apart."""
    times = Counter(checkpoint.name for checkpoint in checkpoints)
    return [c if times[c.name] == 1 else replace(c, name=f"{_run_of(c.path)}-{c.name}") for c in checkpoints]


def _run_of(path: Path) -> str:
    return path.resolve().parent.name


def _some(run: Sequence[RunCheckpoint]) -> Sequence[RunCheckpoint]:
    if not run:
        raise SettingError("the run has no checkpoints: there is nothing to choose or average.")
    return run
