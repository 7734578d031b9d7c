"""The JSON schema of recipes, derived from the dataclasses and from the signatures of the methods."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ._model import Factorisation, Gradient, Lora, Model, Module, Recipe, Rule, Source, Token, Vocabulary
from ._reader import LARGEST_INTEGER

if TYPE_CHECKING:
    from ..methods import Method, Setting

Schema: TypeAlias = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}


def schema() -> Schema:
    """Describe polyak's form of recipes as JSON Schema, draft 2020-12.

    The settings of the recipe, its models and each rule follow the method in force.
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
                "allOf": [_recipe_follows(method, methods) for method in methods],
            },
            "Slice": _part(methods, ("slices", "modules"), "models"),
            "Module": {**_part(methods, ("modules",), "match"), **_ONE_OF_THREE},
            "Source": {"anyOf": [_TEXT, {**_table(Source, methods), **_PATH_OR_RECIPE}]},
            "Model": {"anyOf": [_TEXT, {**_model(methods), **_PATH_OR_RECIPE}]},
            "Vocabulary": {"anyOf": [_TEXT, {**_table(Vocabulary, methods), **_SOURCE_OR_ROWS}]},
            "Token": {"anyOf": [_TEXT, {**_table(Token, methods), **_ONE_TOKEN}]},
            "Lora": {"anyOf": [_TEXT, _table(Lora, methods)]},
            "Factorisation": _table(Factorisation, methods),
            "Rule": {**_table(Rule, methods), "allOf": [_rule_follows(method) for method in methods]},
            **{f"settings of {method.name}": _settings(method.settings.values(), lists=True) for method in methods},
            **{
                f"models of {method.name}": {"additionalProperties": _settings(_per_model([method]))}
                for method in methods
            },
        },
    }


# What slices and modules share with the recipe that holds them.
_SHARED = ("buffers", "dtype", "seed", "provenance", "vocabulary", "chat_template")
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
_MERGE_ALONE = ("settings", "rules", "skip", "heads")
_DIVIDED = ("models", "slices", "modules")
_ONE_OF_THREE: Schema = {
    "oneOf": [
        {
            "required": [key],
            "properties": dict.fromkeys(
                [*(one for one in _DIVIDED if one != key), *(() if key == "models" else _MERGE_ALONE)], False
            ),
        }
        for key in _DIVIDED
    ]
}


def _part(methods: list[Method], without: Iterable[str], required: str) -> Schema:
    """A slice or module: what a recipe says of a merge, whose method may be that of the recipe."""
    table = _table(Recipe, methods)
    properties = {k: v for k, v in table["properties"].items() if k not in (*_SHARED, *without)}
    if required == "match":
        properties = {"match": {**_TEXTS, "description": _attributes(Module)["match"]}, **properties}
    follows = [_recipe_follows(method, methods) for method in methods]
    return {**table, "properties": properties, "required": [required], "allOf": follows}


_LORA: Schema = {"$ref": "#/$defs/Lora"}
_PATH_OR_RECIPE: Schema = {"oneOf": [{"required": ["path"]}, {"required": ["recipe"]}]}


def _recipe_follows(method: Method, methods: list[Method]) -> Schema:
    own = {s.name: s.name in method.settings and _value(method.settings[s.name]) for s in _per_model(methods)}
    unnamed = {"if": {"not": {"required": ["method"]}}, "then": {"properties": _follows(method)}}
    models = {"items": {"properties": own}}
    return _when(method, {**_only_settings(method), "models": models, "rules": {"items": unnamed}})


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
    said = _attributes(cls)
    special = _special(methods).get(cls, {})
    properties = {
        f.name: {**(special[f.name] if f.name in special else _of(hints[f.name])), "description": said[f.name]}
        for f in fields(cls)
        if hints[f.name] is not Path
    }
    required = [name for name in _REQUIRED[cls] if name in properties]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# What a file must give; a name and an alternative to a path have defaults that dataclasses cannot express.
_REQUIRED: Mapping[type, tuple[str, ...]] = {
    Recipe: ("method",), Source: (), Model: (), Lora: ("path",), Factorisation: (),
    Rule: ("match",), Gradient: ("gradient",), Vocabulary: (), Token: ("source",),
}  # fmt: skip


def _special(methods: Iterable[Method]) -> dict[type, dict[str, Schema]]:
    """Where a file may say more than the dataclass, or where the type does not tell everything."""
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
        Model: {"statistics": {"type": "object", "additionalProperties": _TEXT}},
        Source: {
            "lora": {"anyOf": [_LORA, {"type": "array", "items": _LORA, "minItems": 1}]},
            "recipe": {"anyOf": [_TEXT, {"$ref": "#/$defs/Recipe"}]},
            "layers": _LAYERS,
        },
    }  # fmt: skip


def _natural() -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}


_LAYERS: Schema = {"type": "array", "items": _natural(), "minItems": 2, "maxItems": 2}


def _of(hint: Any) -> Schema:
    """From a type to what a file may hold for it."""
    if get_origin(hint) in (Union, types.UnionType):
        return _of(next(kind for kind in get_args(hint) if kind is not type(None)))
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _of(get_args(hint)[0])}
    if is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    plain: dict[Any, Schema] = {bool: {"type": "boolean"}, str: _TEXT, int: _natural(), float: {"type": "number"}}
    return plain.get(hint, {"type": "object"})


def _attributes(cls: type) -> dict[str, str]:
    """What the docstring says of each field."""
    said: dict[str, str] = {}
    lines = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].splitlines()
    for line in lines:
        name, colon, text = line.strip().partition(": ")
        if colon and line.startswith("    ") and not line.startswith("     "):
            said[name] = text
        else:
            said[next(reversed(said))] += f" {line.strip()}"
    return said


def _model(methods: list[Method]) -> Schema:
    """A model's name, source and settings stand side by side."""
    table, source = _table(Model, methods), _table(Source, methods)
    settings: Schema = {setting.name: {} for setting in _per_model(methods)}  # `_recipe_follows` says what they are
    own = {key: table["properties"][key] for key in ("name", "statistics")}
    return {**table, "properties": {**own, **source["properties"], **settings}}


def _per_model(methods: Iterable[Method]) -> list[Setting]:
    from ._values import per_model

    return list(per_model(methods).values())


def _settings(settings: Iterable[Setting], *, lists: bool = False) -> Schema:
    """A table of settings; `lists` allows one value for each model in a list."""
    properties = {
        setting.name: _list_or(_value(setting)) if lists and setting.per_model else _value(setting)
        for setting in settings
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _list_or(value: Schema) -> Schema:
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}


def _value(setting: Setting) -> Schema:
    leaf = _scalar(setting)
    along = [_gradient({"anyOf": [leaf, _search(leaf, setting)]}), _LINES] if setting.kind is float else []
    search = _search(leaf, setting)
    case = _closed({"match": _TEXT, "value": {"anyOf": [leaf, *along, search]}}, "match", "value")
    cases = _closed({"cases": {"type": "array", "items": case, "minItems": 1}}, "cases")
    return {"anyOf": [leaf, *along, cases, search]}


def _search(leaf: Schema, setting: Setting) -> Schema:
    choices = _closed({"choices": {"type": "array", "items": leaf, "minItems": 2, "uniqueItems": True}}, "choices")
    if setting.kind not in (float, int):
        return _closed({"search": choices}, "search")
    ends = {"type": "array", "items": leaf, "minItems": 2, "maxItems": 2}
    return _closed({"search": {"anyOf": [ends, choices]}, "log": {"type": "boolean"}}, "search")


def _gradient(leaf: Schema) -> Schema:
    return _closed({"gradient": {"type": "array", "items": leaf, "minItems": 1}, "outside": leaf}, "gradient")


def _closed(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_LINES = _closed({"lines": _closed({"alpha": {"type": "number"}, "beta": {"type": "number"}}, "alpha")}, "lines")


def _scalar(setting: Setting) -> Schema:
    if isinstance(setting.kind, tuple):
        return {"enum": list(setting.kind)}
    if setting.kind is bool:
        return {"type": "boolean"}
    if setting.kind is str:
        return {"type": "string", "format": "regex"}
    found: Schema = {"type": "integer" if setting.kind is int else "number"}
    if setting.range is None:
        return found
    if math.isfinite(setting.range.low):
        found["exclusiveMinimum" if setting.range.above else "minimum"] = setting.range.low
    return {**found, "maximum": setting.range.high} if math.isfinite(setting.range.high) else found
