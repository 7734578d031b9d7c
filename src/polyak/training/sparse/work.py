"""The units that train: the dense model, pruning, copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...checkpoint import Checkpoint
from ...checkpoint import open as open_checkpoint
from ...errors import TaskError
from ...runs import Desk, UnitFailed
from .._loop import Fit, fit
from .._models import live_model, scores, write_live
from .._setup import VALIDATION, Setup
from .layers import as_factors, check_support, prunable, read_masks, write_masks
from .options import DENSE, MAIN, Branch, Options, model_in
from .schedules import retraining
from .selectors import Masks, select


def dense(desk: Desk, options: Options) -> dict[str, Any]:
    """Train the dense model, or take the one that the recipe names."""
    setup = options.setup
    with setup.start() as source:
        live = live_model(setup, source)
        if setup.model is None:
            how = Fit(options.original_steps, setup.seed, options.original)
            fit(desk, setup, live, source, how)
        write_live(live, source, model_in(desk.folder), note="the dense model")
    metrics = {"validation": scores(setup, model_in(desk.folder))[VALIDATION]}
    if chance := at_chance(setup, metrics["validation"]):
        raise TaskError(f"the dense model is at chance: {chance}. Train it longer, or name a trained `model:`.")
    return {"metrics": metrics}


def prune(desk: Desk, given: tuple[Options, Branch, int]) -> dict[str, Any]:
    """Prune the model of the phase before to the sparsity of this one."""
    options, branch, phase = given
    before = branch.before(phase)
    refuse_missing(desk, branch, before)
    with open_checkpoint(model_in(desk.folder_of(before))) as source:
        live = live_model(options.setup, source)
        names = prunable(live, options.dense)
        weights = {name: source.read(name) for name in names}
        masks, known = _masks(desk, given, weights)
        pruned = {name: np.where(masks[name], weight, 0) for name, weight in weights.items()}
        live.load(pruned, partial=True)
        write_live(live, source, model_in(desk.folder), note=f"pruned in phase {phase}")
    write_masks(desk.folder, masks)
    for name in (empty := [name for name, mask in masks.items() if not mask.any()]):
        desk.say(f"warning: the layer {name!r} is pruned to nothing. Use the selector `uniform`, or leave it `dense:`.")
    score = scores(options.setup, model_in(desk.folder))[VALIDATION]
    return {
        "metrics": {"sparsity": sparsity_of(masks), "validation": score},
        "weights": {name: [int(mask.sum()), int(mask.size)] for name, mask in masks.items()},
        "drop": _drop(weights, pruned, known, masks),
        "empty": empty,
    }  # fmt: skip


def _masks(desk: Desk, given: tuple[Options, Branch, int], weights: Any) -> tuple[Masks, Masks]:
    """The masks of this phase and of the one before."""
    options, branch, phase = given
    if phase == 1:
        known: Masks = {name: np.ones(weight.shape, np.bool_) for name, weight in weights.items()}
    else:
        known = read_masks(desk.folder_of(branch.average(phase - 1)))
    masks = select(
        options.selector, weights, known, goal=options.sparsity, phase=phase, phases=options.phases,
        seed=options.setup.seed,
    )  # fmt: skip
    return masks, known


def _drop(weights: Any, pruned: Any, known: Masks, masks: Masks) -> float:
    """d1 of ALLR: |W - W_pruned| / (|W| sqrt(q)), with the share q of the weights left that were pruned now."""
    left = sum(int(mask.sum()) for mask in known.values())
    share = 1 - sum(int(mask.sum()) for mask in masks.values()) / left
    if not share:
        return 0.0
    lost = sum(float(((weights[n].astype(np.float64) - pruned[n]) ** 2).sum()) for n in weights)
    whole = sum(float((weights[n].astype(np.float64) ** 2).sum()) for n in weights)
    return min(1.0, (lost / whole / share) ** 0.5) if whole else 0.0


def retrain(desk: Desk, given: tuple[Options, Branch, int, int]) -> dict[str, Any]:
    """Retrain a copy of a pruned model, with its mask."""
    options, branch, phase, number = given
    pruned = branch.pruned(phase)
    refuse_missing(desk, branch, pruned)
    copy, folder = options.copy(number, branch.times), desk.folder_of(pruned)
    rate = retraining(
        options.retrain_schedule, copy.steps, options.original, options.original_steps, desk.results[pruned]["drop"]
    )
    masks = read_masks(folder)
    with open_checkpoint(model_in(folder)) as source:
        live = live_model(copy.setup, source)
        loss = fit(desk, copy.setup, live, source, Fit(copy.steps, copy.seed, rate, as_factors(masks)))
        write_live(live, source, model_in(desk.folder), note=f"{desk.name}, {copy.steps} steps")
    return _scored(desk, copy.setup, masks, loss)


def longer(desk: Desk, options: Options) -> dict[str, Any]:
    """Train the dense model on, without pruning, as long as all phases retrain one copy."""
    copy = options.copy(1, options.phases)
    rate = retraining(options.retrain_schedule, copy.steps, options.original, options.original_steps, 1.0)
    with open_checkpoint(model_in(desk.folder_of(DENSE))) as source:
        live = live_model(copy.setup, source)
        loss = fit(desk, copy.setup, live, source, Fit(copy.steps, copy.seed, rate))
        write_live(live, source, model_in(desk.folder), note=f"{desk.name}, {copy.steps} steps")
    return _scored(desk, copy.setup, {}, loss)


def _scored(desk: Desk, setup: Setup, masks: Masks, loss: float) -> dict[str, Any]:
    with open_checkpoint(model_in(desk.folder)) as written:
        weights = check_support(written, masks)
        score = scores(setup, written)[VALIDATION]
    if chance := at_chance(setup, score):
        raise UnitFailed(f"it is at chance: {chance}. Lower the sparsity, or retrain longer.")
    return {"metrics": {"validation": score}, "loss": loss, "weights": weights}


def at_chance(setup: Setup, score: float) -> str:
    """Words on a validation score that is not better than the most frequent answer; empty for a better one."""
    task = setup.task()
    majority = task.majority(VALIDATION, range(task.count(VALIDATION)))
    if majority is None or (score > majority if task.higher_is_better else score < majority):
        return ""
    return f"{task.metric} {score:.4f} on the validation split, and {majority:.4f} for always the most frequent answer"


def refuse_missing(desk: Desk, branch: Branch, unit: str) -> None:
    """Fail if a unit of this branch has failed; of the main branch, for good.

    Raises:
        TaskError: of the main branch.
        UnitFailed: of a baseline.
    """
    if unit not in desk.results:
        kind = TaskError if branch.name == MAIN else UnitFailed
        raise kind(f"{unit} is missing: {desk.failed.get(unit, 'it was not done')}")


def sparsity_of(masks: Masks) -> float:
    """Share of weights that are pruned."""
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())


def opened_all(desk: Desk, units: list[str]) -> list[Checkpoint]:
    """The models of some units."""
    return [open_checkpoint(model_in(desk.folder_of(unit))) for unit in units]
