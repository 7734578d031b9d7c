"""Values of the settings of methods, as JSON Schema."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ..methods import Setting

Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}


def list_or(value: Schema) -> Schema:
    """A value, or a list of one per model."""
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}


def value(setting: Setting) -> Schema:
    """A reference to the schema of the values of a setting."""
    return {"$ref": f"#/$defs/{domain(setting)}"}


def domain(setting: Setting) -> str:
    """Name the domain of a setting: settings of the same domain share a definition."""
    if isinstance(setting.kind, tuple):
        return f"one of {', '.join(setting.kind)}"
    kinds: dict[type, str] = {bool: "true or false", str: "regular expression", int: "integer", float: "number"}
    return kinds[setting.kind] + (f" {setting.range}" if setting.range else "")


def definition(setting: Setting) -> Schema:
    """Schema of a setting: one value, or a mapping that gives each tensor its own."""
    leaf = _scalar(setting)
    along = [_gradient({"anyOf": [leaf, _search(leaf, setting)]}), _LINES] if setting.kind is float else []
    search = _search(leaf, setting)
    case = _closed({"match": TEXT, "value": {"anyOf": [leaf, *along, search]}}, "match", "value")
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
    schema: Schema = {"type": "integer" if setting.kind is int else "number"}
    if setting.range is None:
        return schema
    if math.isfinite(setting.range.low):
        schema["exclusiveMinimum" if setting.range.above else "minimum"] = setting.range.low
    return {**schema, "maximum": setting.range.high} if math.isfinite(setting.range.high) else schema
