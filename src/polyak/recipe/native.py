"""Strict reader of polyak's own form of recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from ..errors import UnknownMethod, suggestion
from ..reading import (
    Place,
    Table,
    each,
    is_list,
    mapping,
    number,
    pattern,
    patterns,
    text,
)
from ._keys import declared, layer_range, read_keys
from ._model import (
    NOTHING,
    Lora,
    Model,
    Module,
    Recipe,
    Rule,
    Settings,
    Source,
    Value,
    names_in,
    with_shared,
)
from ._scope import Scope
from ._values import frozen, is_list_per_model, per_model, read_settings, read_value
from ._vocabulary import checked

if TYPE_CHECKING:
    from ..methods import Method

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_NOTHING: tuple[Settings, Mapping[str, Settings]] = NOTHING, MappingProxyType({})


def read(data: object, place: Place, scope: Scope) -> Recipe:
    """Read a recipe in polyak's own form.

    Raises:
        RecipeError: with the location in the document, the expected value and the one that was found.
    """
    table = Table(data, place)
    method = table.take("method", resolve_method)
    recipe = Recipe(
        **_read_inputs(table, method, scope),
        **read_keys(Recipe, table, "shared", "recipe"),
        folder=scope.folder,
    )
    table.finish()
    checked(recipe.vocabulary, names_in(recipe), place / "vocabulary")
    return with_shared(recipe)


def _read_inputs(table: Table, method: Method, scope: Scope) -> dict[str, Any]:
    """Read the models, slices or modules of a merge, with the keys that go with them."""
    divided = [key for key in ("models", "slices", "modules") if key in table]
    if len(divided) > 1:
        raise table.place.expected("given one of models, slices and modules", " and ".join(divided))
    base = table.take("base", lambda value, where: _read_base(value, where, scope), None)
    if divided and divided != ["models"]:
        for key in ("settings", "rules", *declared(Recipe, "merge")):
            if key in table:
                raise (table.place / key).error(
                    f"has no effect together with {divided[0]}", f"Move it into the {divided[0]}."
                )
        slices = table.take("slices", each(lambda item, where: _read_slice(item, where, method, scope)), ())
        modules = table.take("modules", each(lambda item, where: _read_module(item, where, method, scope)), ())
        return {"method": method.name, "base": base, "slices": slices, "modules": modules}
    table.known_keys += ["slices", "modules"]
    return {"base": base, **_read_merge(table, method, scope)}


def _read_merge(table: Table, method: Method, scope: Scope) -> dict[str, Any]:
    models = table.take("models", lambda value, where: _read_models(value, where, scope, per_model([method])))
    names = [model.name for model in models]
    shared, own = table.take("settings", lambda value, where: _read_settings(value, where, method, names), _NOTHING)
    return {
        "method": method.name,
        "models": tuple(replace(m, settings=frozen({**own.get(m.name, {}), **m.settings})) for m in models),
        "settings": frozen(shared),
        "rules": table.take("rules", lambda value, where: _read_rules(value, where, method, names), ()),
        **read_keys(Recipe, table, "merge"),
    }


def _read_slice(value: object, place: Place, outer: Method, scope: Scope) -> Recipe:
    table = Table(value, place)
    method = table.take("method", resolve_method, outer)
    base = table.take("base", lambda item, where: _read_base(item, where, scope), None)
    recipe = Recipe(base=base, **_read_merge(table, method, scope), folder=scope.folder)
    table.finish()
    return recipe


def _read_module(value: object, place: Place, outer: Method, scope: Scope) -> Module:
    table = Table(value, place)
    method = table.take("method", resolve_method, outer)
    match = table.take("match", patterns)
    recipe = Recipe(**_read_inputs(table, method, scope), folder=scope.folder)
    if recipe.modules:
        raise (place / "modules").error("cannot be used inside a module")
    table.finish()
    return Module(match, recipe)


def resolve_method(value: object, place: Place) -> Method:
    """Look up a method by its name in a recipe."""
    from ..methods import registry, resolve

    try:
        return resolve(text(value, place))
    except UnknownMethod:
        raise no_method(cast("str", value), registry, place) from None


def no_method(name: str, registered: Iterable[str], place: Place) -> UnknownMethod:
    """Build the error for a method that does not exist, with its location."""
    error = UnknownMethod(name, registered)
    error.args = (f"{place.file}: {place.path}: {error}",)
    return error


def _read_models(value: object, place: Place, scope: Scope, settings: Mapping[str, Any]) -> tuple[Model, ...]:
    models = each(lambda item, where: _read_model(item, where, scope, settings))(value, place)
    first: dict[str, int] = {}
    for i, model in enumerate(models):
        if model.name in first:
            raise place[i].error(
                f"and {place[first[model.name]].path} are both called {model.name!r}", "Give one of them a `name:`."
            )
        first[model.name] = i
    return models


def _read_model(value: object, place: Place, scope: Scope, settings: Mapping[str, Any]) -> Model:
    table = Table({"path": value} if isinstance(value, str) else value, place)
    path = table.peek("path") or table.peek("recipe")
    source = _read_source(table, scope)
    default = default_name(path) if isinstance(path, str) else ""
    if not default and "name" not in table:
        raise place.error("has no name, and its path does not yield one", "Give it a `name:`.")
    name = table.take("name", text, default)
    statistics = table.take("statistics", lambda item, where: _read_statistics(item, where, scope), _EMPTY)
    values: dict[str, Value] = {}
    for key, setting in settings.items():
        if key in table:
            values[key] = table.take(key, lambda item, where, s=setting: read_value(item, where, s))
        table.known_keys.append(key)
    table.finish()
    return Model(name, source, frozen(values), statistics)


def _read_statistics(value: object, place: Place, scope: Scope) -> Mapping[str, str]:
    data = _with_underscores(mapping(value, place), place)
    return MappingProxyType({name: scope.rebased(text(path, place / name)) for name, path in data.items()})


def default_name(path: str) -> str:
    """The default name of a model: the last component of its path.

    A revision (`hf://org/name@revision`) and the suffix of a recipe file are left out.
    """
    last = PurePosixPath(path.partition("://")[2].partition("@")[0] if "://" in path else path)
    name = last.stem if last.suffix in {".yaml", ".yml", ".json"} else last.name
    return "" if name == ".." else name


def _read_base(value: object, place: Place, scope: Scope) -> Source:
    table = Table({"path": value} if isinstance(value, str) else value, place)
    source = _read_source(table, scope)
    table.finish()
    return source


def _read_source(table: Table, scope: Scope) -> Source:
    def path(value: object, place: Place) -> str:
        return scope.rebased(text(value, place))

    def adapter(value: object, place: Place) -> Lora:
        if isinstance(value, str):
            return Lora(path(value, place))
        inner = Table(value, place)
        lora = Lora(inner.take("path", path), inner.take("scale", number, 1.0))
        inner.finish()
        return lora

    def adapters(value: object, place: Place) -> tuple[Lora, ...]:
        return each(adapter)(value, place) if is_list(value) else (adapter(value, place),)

    if ("path" in table) is ("recipe" in table):
        raise table.place.expected("given either `path:` or `recipe:`", "both" if "path" in table else "neither")
    return Source(
        path=table.take("path", path, None),
        recipe=table.take("recipe", scope.nested, None),
        lora=table.take("lora", adapters, ()),
        **read_keys(Source, table),
    )


def _read_settings(
    value: object, place: Place, method: Method, names: Sequence[str]
) -> tuple[Settings, Mapping[str, Settings]]:
    """Read settings; lists of one value per model become settings of the models."""
    data = _with_underscores(mapping(value, place), place)
    own: dict[str, dict[str, Value]] = {}
    for name, setting in method.settings.items():
        if is_list_per_model(data.get(name), setting):
            many, where = data.pop(name), place / name
            if len(many) != len(names):
                raise where.expected(f"one value for each of the {len(names)} models", many)
            for i, model in enumerate(names):
                own.setdefault(model, {})[name] = read_value(many[i], where[i], setting)
    return read_settings(Table(data, place), method.settings, f"method {method.name!r}"), own


def _with_underscores(data: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Replace dashes in the names of settings by underscores."""
    renamed: dict[str, Any] = {}
    for name, value in data.items():
        if (key := name.replace("-", "_")) in renamed:
            raise (place / name).error("is given twice, once with dashes and once with underscores")
        renamed[key] = value
    return renamed


def _read_rules(value: object, place: Place, method: Method, names: Sequence[str]) -> tuple[Rule, ...]:
    if not is_list(value):
        raise place.expected("a list", value)
    return tuple(_read_rule(item, place[i], method, names) for i, item in enumerate(value))


def _read_rule(value: object, place: Place, outer: Method, names: Sequence[str]) -> Rule:
    table = Table(value, place)
    named = table.take("method", resolve_method, None)
    method = named or outer
    shared, dealt = table.take("settings", lambda item, where: _read_settings(item, where, method, names), _NOTHING)
    own = table.take("models", lambda item, where: _read_rule_models(item, where, method, names), _NOTHING[1])
    models = {name: {**dealt.get(name, {}), **own.get(name, {})} for name in names if name in dealt or name in own}
    rule = Rule(
        match=table.take("match", pattern),
        layers=table.take("layers", layer_range, None),
        method=named.name if named else None,
        settings=frozen(shared),
        models=MappingProxyType({name: frozen(settings) for name, settings in models.items()}),
    )
    table.finish()
    return rule


def _read_rule_models(value: object, place: Place, method: Method, names: Sequence[str]) -> Mapping[str, Settings]:
    allowed = per_model([method])
    owner = f"method {method.name!r} (among its per-model settings)"
    by_model: dict[str, Settings] = {}
    for name, settings in mapping(value, place).items():
        if name not in names:
            raise (place / name).error("is not a model of this recipe", suggestion(name, names))
        by_model[name] = read_settings(Table(settings, place / name), allowed, owner)
    return by_model
