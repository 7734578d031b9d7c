"""The parts of a recipe: one for a plain merge, else its slices and modules, each with views of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..checkpoint import Stack, layer_of, picked, stacks
from ..errors import Mismatch, RecipeError, Remedy
from ..reading import Pattern, compiled
from ..recipe import Recipe, Source
from .compatibility import Opened, configs, layer_counts
from .open_models import OpenedModels

# Tensors after the layers come from the last slice; all others outside the layers from the first.
_BEHIND = re.compile(
    r"embed_out|head|score|classifier|pooler|predictions|qa_outputs|logits|ln_f|final|ln_post|project|post_"
    r"|(?:^|\.)(?:layer_?)?norm\.|(?:^|\.)out(?:put)?[._]",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"(?:^|\.)embeddings?\.|embed_(?:tokens|positions)|layer_?norm_pre|pre_")


@dataclass(frozen=True)
class Layer:
    """Source of a layer of the result: a model, its stack and the layer there."""

    model: Opened
    stack: Stack
    number: int


@dataclass(frozen=True)
class Part:
    """Part of the result that one recipe without slices and modules makes.

    Attributes:
        recipe: The recipe of this part.
        models: Views of its models, with the names of the result.
        base: View of its base, with the names of the result.
        name: Name in the plan; empty for a plain merge.
        whole: The base and the models with all their tensors.
        tied: Tensors of this part that are tied in all its models, and have no values of their own.
    """

    recipe: Recipe
    models: tuple[Opened, ...]
    base: Opened | None
    name: str
    whole: tuple[Opened, ...]
    tied: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Parts:
    """All parts, with the sources of layers of the result.

    Attributes:
        parts: The parts, in the order of the result.
        layers: The source of each layer of stacks that slices make, by the prefix of the stack.
    """

    parts: tuple[Part, ...]
    layers: Mapping[str, tuple[Layer, ...]]


def parts_of(recipe: Recipe, opened_models: OpenedModels) -> Parts:
    """Divide a recipe into parts, each with views of the tensors that it takes from its models.

    Raises:
        RecipeError: layers are out of range or unequal in number, or modules leave tensors out.
        Mismatch: the layers of the slices have different names.
    """
    if recipe.modules:
        return _modules(recipe, opened_models)
    if recipe.slices:
        return _stacked(recipe.slices, opened_models, "")
    if any(source and source.layers for source in _sources(recipe)):
        return _stacked((recipe,), opened_models, "", alone=True)
    whole = opened_models.models(recipe)
    base = opened_models.base(recipe)
    return Parts((Part(recipe, tuple(whole), base, "", (*([base] if base else []), *whole)),), {})


def _sources(recipe: Recipe) -> list[Source | None]:
    return [*(model.source for model in recipe.models), recipe.base]


def _modules(recipe: Recipe, opened_models: OpenedModels) -> Parts:
    parts, layers = list[Part](), dict[str, tuple[Layer, ...]]()
    patterns = [compiled(module.match) for module in recipe.modules]
    for i, module in enumerate(recipe.modules):
        name = f"module {i + 1} ({module.match!r})"
        own = opened_models.of_names(_takes(patterns, i))
        inner = _one_module(module.recipe, own, name)
        parts += [part if part.name else replace(part, name=name) for part in inner.parts]
        layers |= inner.layers
        if not any(view.checkpoint.specs for part in inner.parts for view in part.models):
            raise RecipeError(f"{name} matches no tensor of its models that an earlier module does not take.")
    _refuse_remaining_tensors(recipe, opened_models, patterns)
    return Parts(tuple(parts), layers)


def _takes(patterns: Sequence[Pattern], index: int) -> Any:
    return lambda name: next((i for i, pattern in enumerate(patterns) if pattern.search(name)), None) == index


def _one_module(recipe: Recipe, opened_models: OpenedModels, name: str) -> Parts:
    if recipe.slices:
        return _stacked(recipe.slices, opened_models, f"{name}, ")
    divided = parts_of(recipe, opened_models)
    return replace(divided, parts=tuple(replace(part, name=name) for part in divided.parts))


def _refuse_remaining_tensors(recipe: Recipe, opened_models: OpenedModels, patterns: Sequence[Pattern]) -> None:
    """Refuse modules that leave out tensors of the model whose config the result takes."""
    donor = opened_models.donor(recipe)
    left = [n for n in donor.checkpoint.specs if not any(pattern.search(n) for pattern in patterns)]
    if left:
        raise RecipeError(
            f"no module matches {len(left)} tensors of {donor.name}, such as {', '.join(map(repr, left[:3]))}.",
            remedies=[Remedy.REST],
        )


def _stacked(recipes: Sequence[Recipe], opened_models: OpenedModels, within: str, *, alone: bool = False) -> Parts:
    names = ["" if alone else f"{within}slice {i}" for i in range(1, len(recipes) + 1)]
    slices = [_Slice(each, opened_models, name) for each, name in zip(recipes, names, strict=True)]
    prefix = slices[0].prefix
    if not any(map(len, slices)):
        raise RecipeError(f"{within}{slices[0].name} and all others are empty: no model gives a layer.")
    for each in slices:
        if each.prefix != prefix:
            raise Mismatch(
                f"{each.name} has its layers in {each.prefix!r} and {slices[0].name} in {prefix!r}: they cannot form "
                "one stack.",
                remedies=[Remedy.PREFIX],
            )
        _check_shapes(slices[0], each)
    outside = _assigned(slices[0], slices[-1])
    offset, parts, layers = 0, list[Part](), list[Layer]()
    for each in slices:
        parts.append(each.part(offset, outside[each]))
        layers += each.layers
        offset += len(each)
    return Parts(tuple(parts), {prefix: tuple(layers)})


def _check_shapes(first: _Slice, other: _Slice) -> None:
    """Refuse layers of different widths in one stack, except where the layers of one model differ: it may be pruned."""
    own, others = first.shapes, other.shapes
    for rest in own:
        pair = others.get(rest, own[rest]), own[rest]
        if pair[0] != pair[1] and all(len(shapes) == 1 for shapes in pair):
            (here,), (there,) = pair
            raise Mismatch(
                f"{other.name} does not fit on {first.name}: {rest!r} is {list(here)} in its layers and {list(there)} "
                "in the other's."
            )


def _assigned(first: _Slice, last: _Slice) -> dict[_Slice, list[str]]:
    """Assign the tensors outside the layers to slices."""
    assigned: dict[_Slice, list[str]] = {first: [], last: []}
    for name in dict.fromkeys([*first.outside, *last.outside]):
        behind = _BEHIND.search(name) and not _BEFORE.search(name)
        is_last = name not in first.outside or (behind and name in last.outside)
        assigned[last if is_last else first].append(name)
    return _Everywhere(assigned)


class _Everywhere(dict["_Slice", list[str]]):
    """Tensors outside the layers by slice: none for slices between the first and the last."""

    def __missing__(self, key: _Slice) -> list[str]:
        return []


class _Slice:
    """A range of layers of every model of a recipe, before their numbers in the result are known."""

    def __init__(self, recipe: Recipe, opened_models: OpenedModels, name: str) -> None:
        self.recipe, self.name = recipe, name or "the recipe"
        self._called = name
        if recipe.heads:
            raise RecipeError(f"{self.name} has `heads:`, which is not supported for slices; use `skip:`.")
        models = opened_models.models(recipe)
        self._base = opened_models.base(recipe)
        self._everyone = [*([self._base] if self._base else []), *models]
        sources = [*([recipe.base] if self._base else []), *(model.source for model in recipe.models)]
        self._windows = [self._window(m, s) for m, s in zip(self._everyone, sources, strict=True)]
        self._check()

    def __len__(self) -> int:
        _, first, stop = self._windows[0]
        return stop - first

    def _window(self, model: Opened, source: Source | None) -> tuple[Stack, int, int]:
        stack = chosen(model, source.stack if source else None)
        first, stop = (source.layers if source else None) or (0, len(stack))
        if stop > len(stack):
            raise RecipeError(
                f"{self.name}: layers [{first}, {stop}) of {model.name} are out of range: it has {len(stack)} "
                f"({stack.prefix}0 to {stack.prefix}{len(stack) - 1}), so the largest stop is {len(stack)}."
            )
        return stack, first, stop

    def _check(self) -> None:
        lengths = {stop - first for _, first, stop in self._windows}
        if len(lengths) > 1:
            each = ", ".join(
                f"{m.name} gives {stop - first} ([{first}, {stop}))"
                for m, (_, first, stop) in zip(self._everyone, self._windows, strict=True)
            )
            raise RecipeError(f"{self.name}: all its models must give the same number of layers; {each}.")
        if len(prefixes := dict.fromkeys(stack.prefix for stack, _, _ in self._windows)) > 1:
            raise Mismatch(f"{self.name}: the layers of its models have different names: {', '.join(prefixes)}.")

    @property
    def prefix(self) -> str:
        return self._windows[0][0].prefix

    @property
    def shapes(self) -> dict[str, set[tuple[int, ...]]]:
        """Shapes of the tensors of its layers in its base or first model, by the rest of their names."""
        stack, first, stop = self._windows[0]
        shapes: dict[str, set[tuple[int, ...]]] = {}
        for layer in stack.layers[first:stop]:
            for rest, name in layer.items():
                shapes.setdefault(rest, set()).add(self._everyone[0].checkpoint.spec(name).shape)
        return shapes

    @property
    def layers(self) -> list[Layer]:
        """Sources of its layers: its base or first model."""
        stack, first, stop = self._windows[0]
        return [Layer(self._everyone[0], stack, i) for i in range(first, stop)]

    @property
    def outside(self) -> dict[str, None]:
        """Names outside the stack in any of its models."""
        names: dict[str, None] = {}
        for model in self._everyone:
            for name in [*model.checkpoint.specs, *model.checkpoint.ties]:
                located = layer_of(name)
                if located is None or located[0] != self.prefix:
                    names[name] = None
        return names

    def part(self, offset: int, outside: Sequence[str]) -> Part:
        """Its part of the result, in which its first layer has number `offset`."""
        tied = frozenset(name for name in outside if all(model.ties(name) for model in self._everyone))
        views: list[Opened] = []
        for model, (stack, first, stop) in zip(self._everyone, self._windows, strict=True):
            names = {name: spec.name for name in outside if name not in tied and (spec := model.find(name))}
            views.append(replace(model, checkpoint=picked(model.checkpoint, names | stack.window(first, stop, offset))))
        base = views.pop(0) if self._base else None
        return Part(self.recipe, tuple(views), base, self._called, tuple(self._everyone), tied)


def chosen(model: Opened, name: str | None) -> Stack:
    """The stack of layers of that name; without one, the only stack, or the one whose length the config states.

    Raises:
        RecipeError: there is no such stack, or there are several.
    """
    by_prefix = stacks([*model.checkpoint.specs, *model.checkpoint.ties])
    listed = ", ".join(f"{each.called} ({len(each)} layers)" for each in by_prefix.values())
    if name is not None:
        if stack := by_prefix.get(f"{name.removesuffix('.')}."):
            return stack
        raise RecipeError(f"{model.name} has no stack of layers {name!r}; it has {listed or 'none'}.")
    likely = [each for each in by_prefix.values() if len(each) in _counts(model.config)]  # not a head such as score.0
    for candidates in (list(by_prefix.values()), likely, [each for each in by_prefix.values() if len(each) > 1]):
        if len(candidates) == 1:
            return candidates[0]
    if not by_prefix:
        raise RecipeError(f"{model.name} has no layers: it has no tensor with a name such as PREFIX.0.NAME.")
    raise RecipeError(f"{model.name} has several stacks of layers: {listed}.", remedies=[Remedy.STACK])


def _counts(config: Mapping[str, Any]) -> set[int]:
    return {count for part in configs(config) for count in layer_counts(part)}
