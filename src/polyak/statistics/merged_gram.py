"""Grams of what layers see behind blocks that are merged already, for RegMean++."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from .. import recipe as recipes
from ..checkpoint import Checkpoint, MemoryCheckpoint, fingerprint
from ..engine import run_in_memory
from ..errors import RecipeError, TaskError, suggestion
from ..planning import Plan, plan
from ..recipe import Model, Recipe
from ..tasks.running import guarded, on_device
from ._api import evaluating
from ._layers import inputs_of, weight_of
from ._measurement import Measurement
from ._unfinished import Unfinished, unfinished
from .blocks import Passage, blocks_of, passage_of
from .gram import Gram
from .of_task import Data, outputs_of

if TYPE_CHECKING:
    from torch import nn

    from ..tasks import LiveModel

KIND = "merged_gram"


def measure_through_merge(
    recipe: Recipe,
    data: Mapping[str, Data],
    *,
    blocks: str = "",
    kept: Path | None = None,
    resume: bool = False,
    force: bool = False,
    start: Callable[[int], None] = lambda n: None,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Measurement]:
    """Measure every model's Grams behind merged blocks, block by block.

    For block l, each model's own block l is run on what its examples are behind the merged blocks before, and the Grams
    of its layers are taken; then block l is merged by the recipe, and the examples go through the merged block. What is
    outside the blocks is merged before. The states of all examples are kept, so that each block runs twice for each
    example, whatever the depth.

    Args:
        recipe: The models, and `regmean_plus_plus` with its settings.
        data: Examples for each model, by its name.
        blocks: Where the blocks are (default: see `blocks_of`).
        kept: Folder that keeps each block's Grams until all are measured, so that `resume` goes on behind them.
        resume: Go on with an unfinished measurement.
        force: Throw an unfinished measurement away.
        start: Told how many blocks there are, of all models.
        advance: Told after each.

    Raises:
        RecipeError: the recipe is of another method, or a model has no examples.
        TaskError: the module has no blocks that follow one another, or fails.
        OutputExists: an unfinished measurement lies at `kept`, and neither was asked for.
        CannotResume: it is of other models, settings or data, or damaged.

    Source: Nguyen et al., 2025. arXiv:2508.03121
    """
    _check(recipe, data)
    planned = _planned(recipe)
    key = json.dumps([KIND, planned.digest, recipes.digest(recipe), {n: data[n].digest for n in sorted(data)}, blocks])
    with unfinished(kept, key, resume=resume, force=force) as known:
        pupils = [_pupil(one.name, planned.models[one.name], data[one.name], blocks) for one in recipe.models]
        depth = _depth(pupils)
        start(depth * len(pupils))
        merge = _Merge(recipe, pupils)
        inside = {name for pupil in pupils for i in range(depth) for name in pupil.names_in(i).values()}
        merge.put(lambda name: name not in inside)
        for pupil in pupils:
            pupil.passages = _passages(pupil, data[pupil.name])
        for i in range(depth):
            _pass(i, pupils, merge, known)
            for _ in pupils:
                advance(1)
        digest = recipes.digest(merge.recipe)
        return {pupil.name: _joined(pupil, planned.models[pupil.name], digest) for pupil in pupils}


def _pass(i: int, pupils: Sequence[_Pupil], merge: _Merge, known: Unfinished) -> None:
    """Measure a block, merge it, and send the examples on; what an earlier run has measured is not measured again."""
    measured = known.measured(i)
    if measured is None:
        measured = {pupil.name: pupil.look(i) for pupil in pupils}
        known.keep(i, measured)
    for pupil in pupils:
        if (one := measured[pupil.name]) is not None:
            pupil.found.append(one)
    own = {name for pupil in pupils for name in pupil.names_in(i).values()}
    merge.put(own.__contains__, {name: one.tensors for name, one in measured.items() if one is not None})
    for pupil in pupils:
        pupil.go_on(i)


@dataclass
class _Pupil:
    """A model alive in its task, whose blocks become merged one after the other.

    Attributes:
        name: What the recipe calls it.
        live: The module.
        where: The container of its blocks.
        blocks: Its blocks.
        passages: Its examples, on their way.
        found: What was measured of its blocks.
    """

    name: str
    live: LiveModel
    where: str
    blocks: list[nn.Module]
    passages: list[Passage] = field(default_factory=list[Passage])
    found: list[Measurement] = field(default_factory=list[Measurement])

    def names_in(self, i: int) -> dict[str, str]:
        """From a block's own names of its parameters and buffers to the checkpoint's."""
        prefix = f"{self.where}.{i}." if self.where else f"{i}."
        return {name.removeprefix(prefix): to for name, to in self.live.names.items() if name.startswith(prefix)}

    def grams(self, i: int) -> Gram | None:
        """Grams of a block's layers; None if it has none."""
        if not any(weight_of(layer) is not None for layer in self.blocks[i].modules()):
            return None
        return _BlockGram(
            self.blocks[i],
            lambda block, passage: passage.through(block, i),
            mask=lambda passage: passage.mask,
            names=self.names_in(i),
            identify=lambda passage: passage.identities,
        )

    def look(self, i: int) -> Measurement | None:
        """Measure a block that is still the model's own, behind merged ones."""
        if (gram := self.grams(i)) is None:
            return None
        for passage in self.passages:
            gram.observe(passage)
        return gram.finish()

    def go_on(self, i: int) -> None:
        """Send the examples through a block."""
        with torch.no_grad(), evaluating(self.blocks[i]):
            for passage in self.passages:
                passage.hidden = passage.through(self.blocks[i], i)


class _BlockGram(Gram):
    kind: ClassVar[str] = KIND


class _Merge:
    """Merges some tensors at a time into all models' modules, as `polyak merge` will with the finished Grams."""

    def __init__(self, recipe: Recipe, pupils: Sequence[_Pupil]) -> None:
        self.recipe = replace(recipe, models=tuple(replace(one, statistics={}) for one in recipe.models))
        self._pupils = pupils
        # A plan wants the statistic of every model; tensors without it are averaged.
        self._none = {pupil.name: _nothing_of(pupil) for pupil in pupils}

    def put(self, wanted: Callable[[str], bool], grams: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Merge those tensors whose names are wanted.

        Args:
            wanted: Says which.
            grams: By model, what was measured of them.
        """
        given = {name: MemoryCheckpoint(one) for name, one in (grams or self._none).items()}
        planned = plan(self.recipe, statistics={KIND: given})
        steps = tuple(step for step in planned.steps if step.file is None and wanted(step.out.name))
        if not steps:
            return
        merged = run_in_memory(replace(planned, steps=steps))
        for pupil in self._pupils:
            places = pupil.live.tensors
            pupil.live.load({name: one for name, one in merged.items() if name in places}, partial=True)


def _check(recipe: Recipe, data: Mapping[str, Data]) -> None:
    if recipe.method != "regmean_plus_plus":
        raise RecipeError(
            f"Grams behind merged blocks are for the method 'regmean_plus_plus'; the recipe has {recipe.method!r}."
        )
    names = [one.name for one in recipe.models]
    if lacking := [name for name in names if name not in data]:
        raise RecipeError(f"{lacking[0]} has no examples: give a task for each model of the recipe.")
    if odd := [name for name in data if name not in names]:
        raise RecipeError(f"the recipe has no model {odd[0]!r}. {suggestion(odd[0], names)}")


def _planned(recipe: Recipe) -> Plan:
    """A plan of the recipe's models, opened as a merge would open them."""
    models = tuple(Model(one.name, one.source) for one in recipe.models)
    return plan(replace(recipe, method="linear", settings={}, rules=(), models=models))


def _pupil(name: str, model: Checkpoint, data: Data, path: str) -> _Pupil:
    live = data.task.live(model)
    on_device(live.module, data.device)
    where, found = blocks_of(live.module, path)
    return _Pupil(name, live, where, found)


def _depth(pupils: Sequence[_Pupil]) -> int:
    for pupil in pupils[1:]:
        if len(pupil.blocks) != len(pupils[0].blocks):
            raise TaskError(
                f"{pupils[0].name} has {len(pupils[0].blocks)} blocks and {pupil.name} {len(pupil.blocks)}: merged "
                "models have as many."
            )
    return len(pupils[0].blocks)


def _passages(pupil: _Pupil, data: Data) -> list[Passage]:
    run, found = outputs_of(data.task), list[Passage]()
    who = f"task {data.task.name!r}, model {pupil.name}"
    with torch.no_grad(), evaluating(pupil.live.module):
        for tree in data.trees():
            once = partial(run, pupil.live.module, tree)
            sent = partial(passage_of, once, pupil.blocks, tree["mask"], _ids(data, tree))
            found.append(guarded(sent, who))
    return found


def _ids(data: Data, tree: Any) -> list[bytes]:
    return list(data.identify(tree))


def _nothing_of(pupil: _Pupil) -> dict[str, npt.NDArray[np.float32]]:
    """A Gram of zeros, with which a layer is averaged."""
    for i in range(len(pupil.blocks)):
        for layer in pupil.blocks[i].modules():
            if (weight := weight_of(layer)) is None or not isinstance(width := inputs_of(layer), int):
                continue
            names = {id(place): name for name, place in pupil.live.tensors.items()}
            if id(weight) in names:
                return {names[id(weight)]: np.zeros((width, width), np.float32)}
    raise TaskError(f"the blocks of {pupil.name} have no linear layer or convolution of which a Gram could be taken.")


def _joined(pupil: _Pupil, model: Checkpoint, recipe: str) -> Measurement:
    """One measurement of all blocks."""
    tensors = {name: one for found in pupil.found for name, one in found.tensors.items()}
    rows = {name: one for found in pupil.found for name, one in found.rows.items()}
    notes = tuple(dict.fromkeys(note for found in pupil.found for note in found.notes))
    digest = fingerprint(model, ((name, model.spec(name)) for name in tensors))
    facts = {**pupil.found[0].facts, "blocks": pupil.where, "recipe": recipe}
    return replace(pupil.found[0], tensors=tensors, rows=rows, model=digest, facts=facts, notes=notes)
