"""Recipes as frozen data. Equal recipes give equal checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from ..errors import Door
from ..reading import Place, Table, integer, one_of, patterns, text
from ._keys import (
    declared,
    dtype_name,
    file_key,
    plain_mapping,
    positive,
    read_keys,
    share,
    source_layers,
    write_keys,
)  # fmt: skip
from ._vocabulary import Vocabulary, plain_vocabulary, read_vocabulary

Scalar: TypeAlias = bool | int | float | str
BASE = "base"  # the name of the base, which no model may have


@dataclass(frozen=True)
class Search:
    """A search range of a setting, from which `polyak search` chooses; such a recipe cannot be merged.

    Attributes:
        low: Lower end of the range; None with `choices`.
        high: Upper end of the range; None with `choices`.
        log: Sample the range on a logarithmic scale.
        choices: Words, numbers or booleans to choose from instead of a range.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Gradient:
    """A number that varies with the depth of a layer in its stack, interpolated linearly between `values`.

    Layer i of L is at depth i / (L - 1); the only layer of a stack is at depth 1.

    Attributes:
        values: Numbers at equally spaced depths, from the first layer to the last.
        outside: The number for tensors outside the stacks (default: none; such tensors need their own rule).
    """

    values: tuple[float | Search, ...]
    outside: float | Search | None = None


@dataclass(frozen=True)
class Cases:
    """A value that depends on the tensor's name: that of the first pattern that matches.

    Attributes:
        cases: Regular expressions (`re.search`) with their values.
    """

    cases: tuple[tuple[str, Scalar | Gradient | Search], ...]


Value: TypeAlias = Scalar | Gradient | Cases | Search
Settings: TypeAlias = Mapping[str, Value]
NOTHING: Settings = MappingProxyType({})


@dataclass(frozen=True)
class Lora:
    """An adapter that is applied while the model is read.

    Attributes:
        path: Its folder.
        scale: Factor of its delta, in addition to its own alpha / r.
    """

    path: str
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """Source of weights: a path or a nested recipe, and the view of it.

    Attributes:
        path: A folder or file; relative to `Recipe.folder`.
        recipe: A nested merge, whose result is used without being written.
        lora: Adapters, applied in order.
        key: Path of the state dict in a pickled file.
        strip_prefix: Prefix to remove from tensor names.
        add_prefix: Prefix to add to all tensor names, such as `vision_tower.`.
        layers: Half-open range of layers [first, stop) to take instead of all; they are renumbered.
        stack: Name of the stack that `layers` selects from, such as `model.decoder.layers`, where there are several.
    """

    path: str | None = None
    recipe: Recipe | None = None
    lora: tuple[Lora, ...] = ()
    key: str | None = file_key(text)
    strip_prefix: str | None = file_key(text)
    add_prefix: str | None = file_key(text)
    layers: tuple[int, int] | None = file_key(source_layers)
    stack: str | None = file_key(text)


@dataclass(frozen=True)
class Model:
    """One of the models to merge.

    Attributes:
        name: Its name in rules and reports, which also seeds its random masks; unique in the recipe.
        source: The source of its weights.
        settings: Its values of the method's per-model settings, such as `weight`.
        statistics: Paths of its measured statistics, for methods that need them, by name, such as `fisher`.
    """

    name: str
    source: Source
    settings: Settings = field(default_factory=lambda: NOTHING)
    statistics: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Rule:
    """Other settings, or another method, for some tensors.

    Attributes:
        match: Regular expression (`re.search`) on the tensor's name.
        layers: Half-open range of layers [first, stop) that it applies to (default: all).
        method: Another method; models keep their weights, its other settings have its own defaults.
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
        rank: Maximum rank of a module of the result (default: no limit).
        energy: Minimum share of the squared norm of a module's merged delta to keep, in (0, 1] (default: as much as
            `rank` allows).
        space: Merge the `product` B A, the delta of an adapter; or the `factors` A and B separately, which is an
            approximation whose error is reported.
        absent: Treatment of modules that some adapters lack: an error (`refuse`), or a delta of `zero`.
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
    return write_keys(factorisation) or {"absent": factorisation.absent}  # an empty mapping would be left out


@dataclass(frozen=True)
class Module:
    """A part of a model that is merged by its own recipe.

    Attributes:
        match: Regular expression (`re.search`) on tensors' names; a tensor belongs to the first module that matches.
        recipe: The recipe of its tensors.
    """

    match: str
    recipe: Recipe


@dataclass(frozen=True)
class Recipe:
    """A merge: models, method, settings, and exceptions for some tensors.

    Precedence of a setting: a rule's value for a model, the rule's, the model's, the recipe's, the method's default.

    Attributes:
        method: The merge method's name; slices and modules may name their own.
        models: The models, in the order in which the method takes them.
        slices: Instead of models: recipes whose layers are stacked, the first at the bottom.
        modules: Instead of models: recipes for the parts of a model, each with a pattern (`match`) of tensor names.
        base: The common ancestor, for methods that work on task vectors.
        settings: Settings of the method.
        rules: Exceptions; the first that matches a tensor applies.
        skip: Tensors whose names match keep the base's values (or are left out, without a base).
        heads: Tensors whose names match are not merged: each model's are written to a separate file.
        buffers: Copy integer and boolean tensors from the `first` or `last` model (default: from the base; without a
            base they must be equal).
        dtype: The dtype of the result (default: each tensor's, as the base or first model stores it).
        seed: Seeds random methods.
        adapter: For merges of adapters into an adapter (`polyak lora merge`): the factorisation of the result.
        vocabulary: The vocabulary of the result, if the models' tokens differ.
        chat_template: `auto` (that of most models), `none`, the name of a template or of a model, or a template.
        provenance: For learned recipes: objective and data; not interpreted.
        folder: The folder that paths are relative to; ignored when recipes are compared, as is the door.
        door: The kind of file or command that it comes from, which decides the words of remedies in errors.
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
    door: Door = field(default="recipe", compare=False)


def with_shared(recipe: Recipe) -> Recipe:
    """Pass shared keys (seed, dtype, buffers) on to slices and modules, and the base to modules without one."""
    shared: dict[str, Any] = {name: getattr(recipe, name) for name in declared(Recipe, "shared")}
    slices = tuple(replace(part, **shared) for part in recipe.slices)
    modules = tuple(
        replace(module, recipe=with_shared(replace(module.recipe, **shared, base=module.recipe.base or recipe.base)))
        for module in recipe.modules
    )
    return replace(recipe, slices=slices, modules=modules)


def names_in(recipe: Recipe) -> set[str]:
    """Names of the models of a recipe, its slices and its modules, and `base` where there is one."""
    parts = [*recipe.slices, *(module.recipe for module in recipe.modules)]
    names = {name for part in parts for name in names_in(part)} | {model.name for model in recipe.models}
    return names | {BASE} if recipe.base else names
