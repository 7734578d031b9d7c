"""Recipes as frozen data.  Equal recipes give equal checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from ..reading import Place, Table, integer, one_of, patterns, text
from ._keys import (
    declared,
    dtype_name,
    file_key,
    layer_range,
    plain_mapping,
    positive,
    read_keys,
    share,
    write_keys,
)  # fmt: skip
from ._vocabulary import Vocabulary, plain_vocabulary, read_vocabulary

Scalar: TypeAlias = bool | int | float | str
BASE = "base"  # what the base is called, and no model may be


@dataclass(frozen=True)
class Search:
    """A number or word that `polyak search` is to choose; no merge can be planned before it has.

    Attributes:
        low: The least number; None where there are `choices`.
        high: The greatest number; None where there are `choices`.
        log: Whether all orders of magnitude in between are equally likely at first.
        choices: Words, numbers or truth values instead of a range.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Gradient:
    """A number that changes over the depth of a stack of layers, interpolated between `values`.

    Layer i of L stands at depth i / (L - 1); the only layer of a stack stands at 1.

    Attributes:
        values: Numbers at equal distances, from the first layer to the last.
        outside: The number for tensors outside the stacks (default: none; such tensors need a rule of their own).
    """

    values: tuple[float | Search, ...]
    outside: float | Search | None = None


@dataclass(frozen=True)
class Cases:
    """A value that depends on the tensor's name: the first pattern that is found in it decides.

    Attributes:
        cases: Regular expressions (`re.search`) with their values.
    """

    cases: tuple[tuple[str, Scalar | Gradient | Search], ...]


Value: TypeAlias = Scalar | Gradient | Cases | Search
Settings: TypeAlias = Mapping[str, Value]
NOTHING: Settings = MappingProxyType({})


@dataclass(frozen=True)
class Lora:
    """An adapter to apply on the fly.

    Attributes:
        path: Its folder.
        scale: What its delta is multiplied by, beyond its own alpha / r.
    """

    path: str
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """Source of weights: a path or a nested recipe, and the view of it.

    Attributes:
        path: A folder or file; relative to `Recipe.folder`.
        recipe: A merge whose result is used without being written.
        lora: Adapters, applied in order.
        key: Where in a pickled file the state dict lies.
        strip_prefix: What to remove from the beginning of tensor names.
        add_prefix: What to put before all tensor names, such as `vision_tower.`.
        layers: Half-open range of layers [first, stop) to take instead of all; they are numbered anew.
        stack: Which stack of layers that is, such as `model.decoder.layers`, where there are several.
    """

    path: str | None = None
    recipe: Recipe | None = None
    lora: tuple[Lora, ...] = ()
    key: str | None = file_key(text)
    strip_prefix: str | None = file_key(text)
    add_prefix: str | None = file_key(text)
    layers: tuple[int, int] | None = file_key(layer_range)
    stack: str | None = file_key(text)


@dataclass(frozen=True)
class Model:
    """One of the models to merge.

    Attributes:
        name: What rules, random bits and reports call it; unique in the recipe.
        source: Where its weights come from.
        settings: Its values of the method's per-model settings, such as `weight`.
        statistics: What was measured of it on data, for methods that ask for it: paths by name, such as `fisher`.
    """

    name: str
    source: Source
    settings: Settings = field(default_factory=lambda: NOTHING)
    statistics: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Rule:
    """Another treatment for some tensors.

    Attributes:
        match: Regular expression (`re.search`) on the tensor's name.
        layers: Half-open range of layers [first, stop) that it is limited to (default: no limit).
        method: Another method; models keep their weights, its other settings start from its own defaults.
        settings: Settings that replace the recipe's.
        models: Per-model settings that replace those of models and rule, by model name.
    """

    match: str
    layers: tuple[int, int] | None = None
    method: str | None = None
    settings: Settings = field(default_factory=lambda: NOTHING)
    models: Mapping[str, Settings] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Factorisation:
    """Factorisation of merged adapters into an adapter.

    Attributes:
        rank: The most that a module of the result has (default: no limit, where the merge is of low rank by itself).
        energy: The least share of the squares of a module's merged delta that is kept, in (0, 1] (default: all that
            `rank` allows).
        space: What is merged: the `product` B A, which is what an adapter does; or the `factors` A and B, each by
            itself, which is something else and is reported with its error.
        absent: What a module is in adapters that do not have it: an error (`refuse`), or `zero`.
        base: The name of the base that the result is for (default: the adapters' own, which must agree).
    """

    rank: int | None = file_key(positive)
    energy: float | None = file_key(share)
    space: Literal["product", "factors"] = file_key(one_of(("product", "factors")), "product")
    absent: Literal["refuse", "zero"] = file_key(one_of(("refuse", "zero")), "refuse")
    base: str | None = file_key(text)


def _read_factorisation(value: object, place: Place) -> Factorisation:
    table = Table(value, place)
    factorisation = Factorisation(**read_keys(Factorisation, table))
    table.finish()
    return factorisation


def _write_factorisation(factorisation: Factorisation) -> dict[str, Any]:
    return write_keys(factorisation) or {"absent": factorisation.absent}  # an empty block would be left out


@dataclass(frozen=True)
class Module:
    """A part of a model that is merged by a recipe of its own.

    Attributes:
        match: Regular expression (`re.search`) on tensors' names; the first module that matches takes a tensor.
        recipe: How the tensors are merged.
    """

    match: str
    recipe: Recipe


@dataclass(frozen=True)
class Recipe:
    """A merge: models, method, settings, and exceptions for some tensors.

    Precedence of a setting: a rule's value for a model, the rule's, the model's, the recipe's, the method's default.

    Attributes:
        method: The merge method's name; slices and modules may name their own.
        models: The models, in the order in which the method sees them.
        slices: Instead of models: recipes whose layers are put on one another, the first at the bottom.
        modules: Instead of models: recipes for the parts of a model, each with what its tensors' names `match`.
        base: The common ancestor, for methods that work on differences.
        settings: Settings of the method.
        rules: Exceptions; the first that matches a tensor decides.
        skip: Tensors whose name this finds keep the base's values (or are left out, without a base).
        heads: Tensors whose name this finds stay with their model, in a file of their own.
        buffers: Which model integer and boolean tensors come from when they differ and there is no base.
        dtype: The dtype of the result (default: each tensor's, as the base or first model stores it).
        seed: Seeds random methods.
        adapter: For merges of adapters into an adapter (`polyak lora merge`): what the result is like.
        vocabulary: Whose tokens the result has, where the models' tokens differ.
        chat_template: `auto` (what most models have), `none`, the name of a template or of a model, or a template.
        provenance: For learned recipes: what was optimised, on which data; not interpreted.
        folder: What relative paths are relative to; not part of what the recipe says.
    """

    method: str
    models: tuple[Model, ...] = ()
    base: Source | None = None
    settings: Settings = field(default_factory=lambda: NOTHING)
    rules: tuple[Rule, ...] = ()
    skip: str | None = file_key(patterns, scope="merge")
    heads: str | None = file_key(patterns, scope="merge")
    buffers: Literal["first", "last"] | None = file_key(one_of(("first", "last")), scope="shared")
    dtype: str | None = file_key(dtype_name, scope="shared")
    seed: int = file_key(integer, 0, scope="shared")
    adapter: Factorisation | None = file_key(_read_factorisation, write=_write_factorisation)
    slices: tuple[Recipe, ...] = ()
    modules: tuple[Module, ...] = ()
    vocabulary: Vocabulary | None = file_key(read_vocabulary, write=plain_vocabulary)
    chat_template: str | None = file_key(text)
    provenance: Mapping[str, Any] = file_key(plain_mapping, MappingProxyType({}))
    folder: Path = field(default=Path(), compare=False)


def with_shared(recipe: Recipe) -> Recipe:
    """Give slices and modules what they share: seed, dtype, buffers, and modules the base where they name none."""
    shared: dict[str, Any] = {name: getattr(recipe, name) for name in declared(Recipe, "shared")}
    slices = tuple(replace(one, **shared) for one in recipe.slices)
    modules = tuple(
        replace(m, recipe=with_shared(replace(m.recipe, **shared, base=m.recipe.base or recipe.base)))
        for m in recipe.modules
    )
    return replace(recipe, slices=slices, modules=modules)


def names_in(recipe: Recipe) -> set[str]:
    """Names of the models of a recipe, its slices and its modules, and `base` where there is one."""
    parts = [*recipe.slices, *(module.recipe for module in recipe.modules)]
    found = {name for part in parts for name in names_in(part)} | {model.name for model in recipe.models}
    return found | {BASE} if recipe.base else found
