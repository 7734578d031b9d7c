"""Grams of layer inputs computed behind merged blocks, for RegMean++."""

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
from ..tasks import guarded, on_device
from ._blocks import Passage, blocks_of, passage_of
from ._data import Data
from ._layers import inputs_of, weight_of
from ._measurement import Measurement
from ._statistic import evaluating
from ._unfinished import Unfinished, unfinished
from .gram import Gram

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

    The hidden states of each model's examples pass through the merged blocks 0 to l - 1. Each model's own block l runs
    on them, and the Grams of its layers are accumulated; then block l is merged by the recipe, and the hidden states
    pass through it. Tensors outside the blocks are merged first. Hidden states of all examples stay in memory, so that
    each block runs twice per example at any depth.

    Args:
        recipe: The models, and `regmean_plus_plus` with its settings.
        data: Examples for each model, by its name.
        blocks: Path of the blocks' container (default: see `blocks_of`).
        kept: Folder for the Grams of finished blocks, from which `resume` continues; removed at the end.
        resume: Resume an unfinished measurement.
        force: Discard an unfinished measurement.
        start: Called with the number of blocks of all models.
        advance: Called after each block.

    Raises:
        RecipeError: the recipe is of another method, or a model has no examples.
        TaskError: the module has no consecutive blocks, or fails.
        OutputExists: there is an unfinished measurement at `kept`, and neither `resume` nor `force`.
        CannotResume: it is of other models, settings or data, or damaged.

    Source: Nguyen et al., 2025. arXiv:2508.03121
    """
    _check(recipe, data)
    planned = _planned(recipe)
    key = json.dumps([KIND, planned.digest, recipes.digest(recipe), {n: data[n].digest for n in sorted(data)}, blocks])
    with unfinished(kept, key, resume=resume, force=force) as progress:
        experts = [_expert(model.name, planned.models[model.name], data[model.name], blocks) for model in recipe.models]
        depth = _depth(experts)
        start(depth * len(experts))
        merge = _Merge(recipe, experts)
        inside = {name for expert in experts for i in range(depth) for name in expert.names_in(i).values()}
        merge.put(lambda name: name not in inside)
        for expert in experts:
            expert.passages = _passages(expert, data[expert.name])
        for i in range(depth):
            _pass(i, experts, merge, progress)
            for _ in experts:
                advance(1)
        digest = recipes.digest(merge.recipe)
        return {expert.name: _joined(expert, planned.models[expert.name], digest) for expert in experts}


def _pass(i: int, experts: Sequence[_Expert], merge: _Merge, progress: Unfinished) -> None:
    """Measure a block unless an earlier run did, merge it, and pass the hidden states through it."""
    measured = progress.measured(i)
    if measured is None:
        measured = {expert.name: expert.measure(i) for expert in experts}
        progress.keep(i, measured)
    for expert in experts:
        if (measurement := measured[expert.name]) is not None:
            expert.measurements.append(measurement)
    own = {name for expert in experts for name in expert.names_in(i).values()}
    merge.put(
        own.__contains__,
        {name: measurement.tensors for name, measurement in measured.items() if measurement is not None},
    )
    for expert in experts:
        expert.forward(i)


@dataclass
class _Expert:
    """A model as a module of its task, whose blocks are replaced by merged ones, first to last.

    Attributes:
        name: Its name in the recipe.
        live: The module.
        path: The container of its blocks.
        blocks: Its blocks.
        passages: Its examples, each with the hidden states before the next block.
        measurements: Measurements of its blocks.
    """

    name: str
    live: LiveModel
    path: str
    blocks: list[nn.Module]
    passages: list[Passage] = field(default_factory=list[Passage])
    measurements: list[Measurement] = field(default_factory=list[Measurement])

    def names_in(self, i: int) -> dict[str, str]:
        """From a block's own names of its parameters and buffers to the checkpoint's."""
        prefix = f"{self.path}.{i}." if self.path else f"{i}."
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

    def measure(self, i: int) -> Measurement | None:
        """Measure the model's own block on the hidden states behind merged blocks; None if it has no Gram."""
        if (gram := self.grams(i)) is None:
            return None
        for passage in self.passages:
            gram.observe(passage)
        return gram.finish()

    def forward(self, i: int) -> None:
        """Pass the hidden states through a block."""
        with torch.no_grad(), evaluating(self.blocks[i]):
            for passage in self.passages:
                passage.hidden = passage.through(self.blocks[i], i)


class _BlockGram(Gram):
    kind: ClassVar[str] = KIND


class _Merge:
    """Merges some tensors at a time into the modules of all models, as `polyak merge` does with the finished Grams."""

    def __init__(self, recipe: Recipe, experts: Sequence[_Expert]) -> None:
        self.recipe = replace(recipe, models=tuple(replace(model, statistics={}) for model in recipe.models))
        self._experts = experts
        # A plan needs the statistic of every model; tensors without it are averaged.
        self._none = {expert.name: _nothing_of(expert) for expert in experts}

    def put(self, is_merged: Callable[[str], bool], grams: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Merge some tensors.

        Args:
            is_merged: Predicate on names: True for tensors to merge.
            grams: Their Grams, by model; zeros if None.
        """
        statistics = {name: MemoryCheckpoint(tensors) for name, tensors in (grams or self._none).items()}
        planned = plan(self.recipe, statistics={KIND: statistics})
        steps = tuple(step for step in planned.steps if step.file is None and is_merged(step.out.name))
        if not steps:
            return
        merged = run_in_memory(replace(planned, steps=steps))
        for expert in self._experts:
            own = expert.live.tensors
            expert.live.load({name: tensor for name, tensor in merged.items() if name in own}, partial=True)


def _check(recipe: Recipe, data: Mapping[str, Data]) -> None:
    if recipe.method != "regmean_plus_plus":
        raise RecipeError(
            f"Grams behind merged blocks are for the method 'regmean_plus_plus'; the recipe has {recipe.method!r}."
        )
    names = [model.name for model in recipe.models]
    if lacking := [name for name in names if name not in data]:
        raise RecipeError(f"{lacking[0]} has no examples: give a task for each model of the recipe.")
    if odd := [name for name in data if name not in names]:
        raise RecipeError(f"the recipe has no model {odd[0]!r}. {suggestion(odd[0], names)}")


def _planned(recipe: Recipe) -> Plan:
    """A plan of the recipe's models, opened as a merge would open them."""
    models = tuple(Model(model.name, model.source) for model in recipe.models)
    return plan(replace(recipe, method="linear", settings={}, rules=(), models=models))


def _expert(name: str, model: Checkpoint, data: Data, path: str) -> _Expert:
    live = data.task.live(model)
    on_device(live.module, data.device)
    container, blocks = blocks_of(live.module, path)
    return _Expert(name, live, container, blocks)


def _depth(experts: Sequence[_Expert]) -> int:
    for expert in experts[1:]:
        if len(expert.blocks) != len(experts[0].blocks):
            raise TaskError(
                f"{experts[0].name} has {len(experts[0].blocks)} blocks and {expert.name} {len(expert.blocks)}: merged "
                "models must have equally many."
            )
    return len(experts[0].blocks)


def _passages(expert: _Expert, data: Data) -> list[Passage]:
    run, passages = data.outputs, list[Passage]()
    who = f"task {data.task.name!r}, model {expert.name}"
    with torch.no_grad(), evaluating(expert.live.module):
        for tree in data.trees():
            forward = partial(run, expert.live.module, tree)
            record = partial(passage_of, forward, expert.blocks, tree["mask"], _ids(data, tree))
            passages.append(guarded(record, who))
    return passages


def _ids(data: Data, tree: Any) -> list[bytes]:
    return list(data.identify(tree))


def _nothing_of(expert: _Expert) -> dict[str, npt.NDArray[np.float32]]:
    """A Gram of zeros for one layer; a layer with it is averaged."""
    for i in range(len(expert.blocks)):
        for layer in expert.blocks[i].modules():
            if (weight := weight_of(layer)) is None or not isinstance(width := inputs_of(layer), int):
                continue
            names = {id(tensor): name for name, tensor in expert.live.tensors.items()}
            if id(weight) in names:
                return {names[id(weight)]: np.zeros((width, width), np.float32)}
    raise TaskError(f"the blocks of {expert.name} have no linear layer or convolution, so there is no Gram to measure.")


def _joined(expert: _Expert, model: Checkpoint, recipe: str) -> Measurement:
    """One measurement of all blocks."""
    tensors = {name: value for measurement in expert.measurements for name, value in measurement.tensors.items()}
    rows = {name: value for measurement in expert.measurements for name, value in measurement.rows.items()}
    notes = tuple(dict.fromkeys(note for measurement in expert.measurements for note in measurement.notes))
    digest = fingerprint(model, ((name, model.spec(name)) for name in tensors))
    facts = {**expert.measurements[0].facts, "blocks": expert.path, "recipe": recipe}
    return replace(expert.measurements[0], tensors=tensors, rows=rows, model=digest, facts=facts, notes=notes)
