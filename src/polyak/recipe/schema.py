"""The JSON schema of recipes, derived from the dataclasses and from the signatures of the methods."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..reading import LARGEST_INTEGER
from ._keys import declared
from ._model import Factorisation, Gradient, Lora, Model, Module, Recipe, Rule, Source
from ._schema_values import TEXT, Schema, definition, domain, list_or, value
from ._vocabulary import Token, Vocabulary

if TYPE_CHECKING:
    from ..methods import Method, Setting

_TEXTS: Schema = {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}


def schema() -> Schema:
    """Describe polyak's form of recipes as JSON Schema, draft 2020-12.

    The settings of the recipe, its models and each rule are those of its method.
    """
    from ..methods import load_all, registry

    load_all()
    methods = sorted(registry.values(), key=lambda method: method.name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "polyak recipe",
        "$ref": "#/$defs/Recipe",
        "$defs": {
            "Recipe": {
                **_table(Recipe, methods),
                **_ONE_OF_THREE,
                "allOf": _recipes_follow(methods),
            },
            "Slice": _part(methods, ("slices", "modules"), "models"),
            "Module": {**_part(methods, ("modules",), "match"), **_ONE_OF_THREE},
            "Source": {"anyOf": [TEXT, {**_table(Source, methods), **_PATH_OR_RECIPE}]},
            "Model": {"anyOf": [TEXT, {**_model(methods), **_PATH_OR_RECIPE}]},
            "Vocabulary": {"anyOf": [TEXT, {**_table(Vocabulary, methods), **_SOURCE_OR_ROWS}]},
            "Token": {"anyOf": [TEXT, {**_table(Token, methods), **_ONE_TOKEN}]},
            "Lora": {"anyOf": [TEXT, _table(Lora, methods)]},
            "Factorisation": _table(Factorisation, methods),
            "Rule": {**_table(Rule, methods), "allOf": [_rule_follows(method) for method in methods]},
            **{f"recipe by {method.name}": _recipe_follows(method) for method in methods},
            **{f"settings of {method.name}": _settings(method.settings.values(), lists=True) for method in methods},
            **{
                f"models of {method.name}": {"additionalProperties": _settings(_per_model([method]))}
                for method in methods
            },
            **{domain(s): definition(s) for method in methods for s in method.settings.values()},
        },
    }


# Keys that slices and modules inherit from their recipe.
_SHARED = tuple(declared(Recipe, "shared", "recipe"))
_SOURCE_OR_ROWS: Schema = {
    "oneOf": [
        {"required": ["source"], "properties": {"rows": False}},
        {"required": ["rows"], "properties": {"tokens": False, "pad_to_multiple_of": False}},
    ]
}
_ONE_TOKEN: Schema = {
    "not": {"required": ["token", "token_id"]},
    "if": {"properties": {"source": {"const": "zero"}}},
    "then": {"properties": {"token": False, "token_id": False}},
}
_MERGE_ALONE = ("settings", "rules", *declared(Recipe, "merge"))
_DIVIDED = ("models", "slices", "modules")
_ONE_OF_THREE: Schema = {
    "oneOf": [
        {
            "required": [key],
            "properties": dict.fromkeys(
                [*(other for other in _DIVIDED if other != key), *(() if key == "models" else _MERGE_ALONE)], False
            ),
        }
        for key in _DIVIDED
    ]
}


def _part(methods: list[Method], without: Iterable[str], required: str) -> Schema:
    """A slice or module: the keys of a merge; without a method, it has that of the recipe."""
    table = _table(Recipe, methods)
    properties = {k: v for k, v in table["properties"].items() if k not in (*_SHARED, *without)}
    if required == "match":
        properties = {"match": {**_TEXTS, "description": _attributes(Module)["match"]}, **properties}
    return {**table, "properties": properties, "required": [required], "allOf": _recipes_follow(methods)}


_LORA: Schema = {"$ref": "#/$defs/Lora"}
_PATH_OR_RECIPE: Schema = {"oneOf": [{"required": ["path"]}, {"required": ["recipe"]}]}


def _recipes_follow(methods: Iterable[Method]) -> list[Schema]:
    return [{"$ref": f"#/$defs/recipe by {method.name}"} for method in methods]


def _recipe_follows(method: Method) -> Schema:
    """In a recipe with this method, the settings of the recipe, its models and rules without a method are its own."""
    unnamed = {"if": {"not": {"required": ["method"]}}, "then": {"properties": _follows(method)}}
    models = {"items": _model_follows(method)}
    return _when(method, {**_only_settings(method), "models": models, "rules": {"items": unnamed}})


def _model_follows(method: Method) -> Schema:
    own = {setting.name: value(setting) for setting in _per_model([method])}
    return {"properties": own, "propertyNames": {"enum": [*_model([])["properties"], *own]}}


def _rule_follows(method: Method) -> Schema:
    return _when(method, _follows(method))


def _when(method: Method, properties: Schema) -> Schema:
    named = {"properties": {"method": {"const": method.name}}, "required": ["method"]}
    return {"if": named, "then": {"properties": properties}}


def _only_settings(method: Method) -> Schema:
    return {"settings": {"$ref": f"#/$defs/settings of {method.name}"}}


def _follows(method: Method) -> Schema:
    return {**_only_settings(method), "models": {"$ref": f"#/$defs/models of {method.name}"}}


def _table(cls: type, methods: Iterable[Method]) -> Schema:
    """A mapping with the fields of a dataclass."""
    hints = get_type_hints(cls)
    descriptions = _attributes(cls)
    special = _special(methods).get(cls, {})
    properties = {
        f.name: {**(special[f.name] if f.name in special else _of(hints[f.name])), "description": descriptions[f.name]}
        for f in fields(cls)
        if f.compare
    }
    required = [name for name in _REQUIRED[cls] if name in properties]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# Required keys of files: dataclasses cannot express that a name has a default, or that a path has an alternative.
_REQUIRED: Mapping[type, tuple[str, ...]] = {
    Recipe: ("method",), Source: (), Model: (), Lora: ("path",), Factorisation: (),
    Rule: ("match",), Gradient: ("gradient",), Vocabulary: (), Token: ("source",),
}  # fmt: skip


def _special(methods: Iterable[Method]) -> dict[type, dict[str, Schema]]:
    """Schemas of fields whose type does not determine the values in a file."""
    from ..checkpoint import DTYPE_NAMES

    named = {"enum": [method.name for method in methods]}
    return {
        Recipe: {
            "method": named, "skip": _TEXTS, "heads": _TEXTS, "dtype": {"enum": list(DTYPE_NAMES)},
            **{
                key: {"type": "array", "items": {"$ref": f"#/$defs/{item}"}, "minItems": 1}
                for key, item in {"models": "Model", "slices": "Slice", "modules": "Module"}.items()
            },
        },
        Factorisation: {
            "rank": {"type": "integer", "minimum": 1, "maximum": LARGEST_INTEGER},
            "energy": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        },
        Vocabulary: {
            "tokens": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Token"}},
            "pad_to_multiple_of": {"type": "integer", "minimum": 1, "maximum": 2**20},
        },
        Rule: {
            "method": named,
            "layers": _LAYERS,
        },
        Model: {"statistics": {"type": "object", "additionalProperties": TEXT}},
        Source: {
            "lora": {"anyOf": [_LORA, {"type": "array", "items": _LORA, "minItems": 1}]},
            "recipe": {"anyOf": [TEXT, {"$ref": "#/$defs/Recipe"}]},
            "layers": _LAYERS,
        },
    }  # fmt: skip


def _natural() -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}


_LAYERS: Schema = {"type": "array", "items": _natural(), "minItems": 2, "maxItems": 2}


def _of(hint: Any) -> Schema:
    """Schema of the values in a file for a field of this type."""
    if get_origin(hint) in (Union, types.UnionType):
        return _of(next(kind for kind in get_args(hint) if kind is not type(None)))
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _of(get_args(hint)[0])}
    if is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    plain: dict[Any, Schema] = {bool: {"type": "boolean"}, str: TEXT, int: _natural(), float: {"type": "number"}}
    return plain.get(hint, {"type": "object"})


def _attributes(cls: type) -> dict[str, str]:
    """Descriptions of the fields, from the docstring."""
    descriptions: dict[str, str] = {}
    lines = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].splitlines()
    for line in lines:
        name, colon, text = line.strip().partition(": ")
        if colon and line.startswith("    ") and not line.startswith("     "):
            descriptions[name] = text
        else:
            descriptions[next(reversed(descriptions))] += f" {line.strip()}"
    return descriptions


def _model(methods: list[Method]) -> Schema:
    """A model: its name, the keys of its source, and its settings in one mapping."""
    table, source = _table(Model, methods), _table(Source, methods)
    settings: Schema = {setting.name: {} for setting in _per_model(methods)}  # `_recipe_follows` constrains them
    own = {key: table["properties"][key] for key in ("name", "statistics")}
    return {**table, "properties": {**own, **source["properties"], **settings}}


def _per_model(methods: Iterable[Method]) -> list[Setting]:
    from ._values import per_model

    return list(per_model(methods).values())


def _settings(settings: Iterable[Setting], *, lists: bool = False) -> Schema:
    """A mapping of settings; `lists` allows lists of one value per model."""
    properties = {
        setting.name: list_or(value(setting)) if lists and setting.per_model else value(setting) for setting in settings
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}
