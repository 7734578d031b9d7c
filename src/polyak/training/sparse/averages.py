"""The units that average: soups of copies, written by the engine, with BatchNorm statistics measured again."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from typing import Any

from ...checkpoint import Checkpoint, MemoryCheckpoint
from ...checkpoint import open as open_checkpoint
from ...engine import run as merge_into
from ...engine import run_in_memory
from ...planning import plan
from ...reading import write_yaml
from ...recipe import Model, Recipe, Source
from ...runs import Desk
from ...statistics import Data, recalibrate, write_with
from ...storage import write_whole
from ...tasks import LiveModel
from .._models import BATCH, live_model, scores
from .._setup import TRAIN, VALIDATION
from .layers import MASKS, check_support, prunable, read_masks, write_masks
from .measures import distances
from .options import MAIN, Branch, Options, model_in
from .selectors import select
from .work import opened_all, refuse_missing, sparsity_of

RECIPE = "recipe.yaml"  # merges the same bytes, without BatchNorm statistics


def average(desk: Desk, given: tuple[Options, Branch, int]) -> dict[str, Any]:
    """Average the copies of a phase."""
    options, branch, phase = given
    copies = [name for number in branch.copies if (name := branch.copy(phase, number)) in desk.results]
    if not copies:
        refuse_missing(desk, branch, branch.copy(phase, branch.copies[0]))
    greedy = options.soup == "greedy" and branch.name == MAIN
    taken, steps = _greedy(desk, options, copies) if greedy else (copies, [])
    _merge(desk, options, taken)
    folder = desk.folder_of(branch.pruned(phase))
    shutil.copyfile(folder / MASKS, desk.folder / MASKS)
    masks = read_masks(folder)
    with open_checkpoint(model_in(desk.folder)) as model:
        weights, score = check_support(model, masks), scores(options.setup, model)[VALIDATION]
    models = opened_all(desk, copies)
    about = {
        "taken": taken,
        "greedy": steps,
        "distances": dict(zip(copies, distances(models, list(masks)), strict=True)),
    }
    return {"metrics": {"sparsity": sparsity_of(masks), "validation": score}, "weights": weights, **about}


def average_of_runs(desk: Desk, given: tuple[Options, Sequence[Branch]]) -> dict[str, Any]:
    """Average the results of independent runs, which have different masks."""
    options, branches = given
    units = [unit for branch in branches if (unit := branch.average(options.phases)) in desk.results]
    if not units:
        refuse_missing(desk, branches[0], branches[0].average(options.phases))
    _merge(desk, options, units)
    return {"metrics": {"validation": scores(options.setup, model_in(desk.folder))[VALIDATION]}, "taken": units}


def prune_again(desk: Desk, given: tuple[Options, str]) -> dict[str, Any]:
    """Prune an average of sparse models to the sparsity of each."""
    import numpy as np

    options, unit = given
    refuse_missing(desk, Branch(unit, ()), unit)
    with open_checkpoint(model_in(desk.folder_of(unit))) as source:
        live = live_model(options.setup, source)
        weights = {name: source.read(name) for name in prunable(live, options.dense)}
        masks = select(
            options.selector, weights, {name: np.ones(w.shape, np.bool_) for name, w in weights.items()},
            goal=options.sparsity, phase=1, phases=1, seed=options.setup.seed,
        )  # fmt: skip
        live.load({name: np.where(masks[name], w, 0) for name, w in weights.items()}, partial=True)
        changed = {
            live.names[name]: array for name, array in _recalibrated(options, live).items() if name in live.names
        }
        tensors = {**live.read(), **changed}
        write_with(source, tensors, model_in(desk.folder), note="an average of sparse models, pruned again", force=True)
    write_masks(desk.folder, masks)
    score = scores(options.setup, model_in(desk.folder))[VALIDATION]
    return {"metrics": {"sparsity": sparsity_of(masks), "validation": score}}


def _merge(desk: Desk, options: Options, units: Sequence[str]) -> None:
    """Write the average of the models of some units, with BatchNorm statistics measured again."""
    merged, out = desk.folder / "merged", model_in(desk.folder)
    merge_into(plan(_recipe(desk, units)), merged, workers=1)
    models = [{"name": unit, "path": f"../{unit}/{out.name}"} for unit in units]
    write_whole(desk.folder / RECIPE, write_yaml({"models": models, "method": "linear"}))
    with open_checkpoint(merged) as model:
        changed = _recalibrated(options, live_model(options.setup, model))
        if changed:
            write_with(model, changed, out, note="BatchNorm statistics of an average, measured again")
    if changed:
        shutil.rmtree(merged)
    else:
        merged.rename(out)


def _recipe(desk: Desk, units: Sequence[str]) -> Recipe:
    models = [Model(unit, Source(path=str(model_in(desk.folder_of(unit))))) for unit in units]
    return Recipe("linear", tuple(models))


def _recalibrated(options: Options, live: LiveModel) -> dict[str, Any]:
    """BatchNorm statistics on a fixed share of the training examples, by tensor; none without BatchNorm."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [p for p in live.module.modules() if isinstance(p, _BatchNorm) and p.track_running_stats]
    if not norms or not options.recalibrate:
        return {}
    setup, examples = options.setup, math.ceil(options.recalibrate * options.examples)
    data = Data(setup.task(), TRAIN, examples, min(BATCH, max(2, examples)), setup.seed, setup.device)
    changed = recalibrate(live.module, data.batches(), setup.task().outputs)
    return {live.names[name]: array for name, array in changed.items() if name in live.names}


def _greedy(desk: Desk, options: Options, copies: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Candidates, best first on the validation split; each is taken if the average does not get worse.

    Candidates and averages are recalibrated before they are compared.
    """
    better = 1 if options.setup.task().higher_is_better else -1
    alone = {copy: _score(desk, options, [copy]) for copy in copies}
    first, *rest = sorted(copies, key=lambda copy: (-better * alone[copy], copies.index(copy)))
    taken, best = [first], alone[first]
    steps: list[dict[str, Any]] = [{"copy": first, "score": best, "taken": True}]
    for copy in rest:
        score = _score(desk, options, [*taken, copy])
        is_taken = better * score >= better * best
        steps.append({"copy": copy, "score": score, "taken": is_taken})
        if is_taken:
            taken, best = [*taken, copy], score
    return taken, steps


def _score(desk: Desk, options: Options, units: Sequence[str]) -> float:
    merged: Checkpoint = MemoryCheckpoint(run_in_memory(plan(_recipe(desk, units)), workers=1), label=" + ".join(units))
    if changed := _recalibrated(options, live_model(options.setup, merged)):
        tensors = {name: changed.get(name, merged.read(name)) for name in merged.specs}
        merged = MemoryCheckpoint(tensors, label=merged.label)
    return scores(options.setup, merged)[VALIDATION]
