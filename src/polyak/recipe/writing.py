"""Recipes as plain data, as YAML, and as digests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ._keys import declared, plain, write_keys
from ._model import Cases, Gradient, Lora, Model, Recipe, Rule, Search, Settings, Source, Value
from .native import default_name


def dump(recipe: Recipe, folder: Path | None = None) -> str:
    """Write a recipe as YAML in polyak's form, in a stable order: `loads(dump(r), r.folder) == r`.

    Nested recipes are written in place; relative paths become absolute where their folder is another.

    Args:
        recipe: The recipe.
        folder: The folder of the file (default: the recipe's own folder).

    Raises:
        RecipeError: it holds something that a recipe file cannot, such as NaN.
    """
    from ..reading import write_yaml

    return write_yaml(as_data(recipe, recipe.folder if folder is None else folder))


def digest(recipe: Recipe) -> str:
    """Digest of a recipe: XXH3-128 (hexadecimal) of its canonical JSON, which includes `provenance`.

    Equal recipes have equal digests, in any notation and in any folder.

    Raises:
        RecipeError: it holds something that a recipe file cannot, such as NaN.
    """
    import xxhash

    data = _canonical(as_data(recipe, None))
    return xxhash.xxh3_128_hexdigest(json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def as_data(recipe: Recipe, folder: Path | None) -> dict[str, Any]:
    """Data from which a file in `folder` reads as the same recipe (None: with unchanged paths)."""
    data = {
        "base": _source(recipe.base, recipe, folder) if recipe.base else None,
        "models": [_model(model, recipe, folder) for model in recipe.models],
        "slices": [_part(part, folder) for part in recipe.slices],
        "modules": [{"match": part.match, **_part(part.recipe, folder)} for part in recipe.modules],
        "method": recipe.method,
        "settings": _settings(recipe.settings),
        "rules": [_rule(rule, [model.name for model in recipe.models]) for rule in recipe.rules],
        **write_keys(recipe),
    }
    return _without_defaults(data)


def _part(recipe: Recipe, folder: Path | None) -> dict[str, Any]:
    """A slice or module, without shared keys."""
    return {key: value for key, value in as_data(recipe, folder).items() if key not in declared(Recipe, "shared")}


def plain_source(source: Source, recipe: Recipe) -> dict[str, Any]:
    """Data of a source, with absolute paths."""
    data = _source(source, recipe, Path("/"))
    return data if isinstance(data, dict) else {"path": data}


def _without_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value not in (None, {}, [])}


def _model(model: Model, recipe: Recipe, folder: Path | None) -> str | dict[str, Any]:
    source = _source(model.source, recipe, folder)
    where = source if isinstance(source, dict) else {"path": source}
    path = where.get("path")
    name = {} if path is not None and default_name(path) == model.name else {"name": model.name}
    measured = {key: _path(at, recipe, folder) for key, at in sorted(model.statistics.items())}
    statistics = {"statistics": measured} if measured else {}
    data = {**name, **where, **statistics, **_settings(model.settings)}
    return data["path"] if data.keys() == {"path"} else data


def _source(source: Source, recipe: Recipe, folder: Path | None) -> str | dict[str, Any]:
    data = _without_defaults(
        {
            "path": None if source.path is None else _path(source.path, recipe, folder),
            "recipe": None if source.recipe is None else as_data(source.recipe, folder),
            "lora": [_lora(lora, recipe, folder) for lora in source.lora],
            **write_keys(source),
        }
    )
    return data["path"] if data.keys() == {"path"} else data


def _lora(lora: Lora, recipe: Recipe, folder: Path | None) -> str | dict[str, Any]:
    path, scale = _path(lora.path, recipe, folder), plain(lora.scale)
    return path if scale == 1 else {"path": path, "scale": scale}


def _path(path: str, recipe: Recipe, folder: Path | None) -> str:
    if folder is None or recipe.folder == folder or "://" in path:
        return path
    return str((recipe.folder / path).absolute())


def _rule(rule: Rule, names: Sequence[str]) -> dict[str, Any]:
    dealt = _dealt(rule, names)
    models = {name: {k: v for k, v in settings.items() if k not in dealt} for name, settings in rule.models.items()}
    return _without_defaults(
        {
            "match": rule.match,
            "layers": None if rule.layers is None else list(rule.layers),
            "method": rule.method,
            "settings": _settings({**rule.settings, **dealt}),
            "models": {name: _settings(settings) for name, settings in models.items() if settings or not dealt},
        }
    )


def _dealt(rule: Rule, names: Sequence[str]) -> dict[str, Any]:
    """Settings of which the rule has a value for every model: they are written as lists."""
    shared = [key for key in next(iter(rule.models.values()), {}) if key not in rule.settings]
    lists = {key: [rule.models.get(name, {}).get(key) for name in names] for key in shared}
    return {key: many for key, many in lists.items() if not any(isinstance(v, Cases | Gradient | None) for v in many)}


def _settings(settings: Settings) -> dict[str, Any]:
    return {name: _value(settings[name]) for name in sorted(settings)}


def _value(value: Value) -> object:
    if isinstance(value, Cases):
        return {"cases": [{"match": match, "value": _value(item)} for match, item in value.cases]}
    if isinstance(value, Gradient):
        outside = {} if value.outside is None else {"outside": _value(value.outside)}
        return {"gradient": [_value(item) for item in value.values], **outside}
    if isinstance(value, Search):
        if value.choices:
            return {"search": {"choices": plain(value.choices)}}
        return {"search": [plain(value.low), plain(value.high)], **({"log": True} if value.log else {})}
    return plain(value)


def _canonical(data: Any) -> Any:
    """Replace equal numbers by the same one: 1.0 by 1, -0.0 by 0."""
    if isinstance(data, dict):
        return {key: _canonical(value) for key, value in cast("dict[str, Any]", data).items()}
    if isinstance(data, list):
        return [_canonical(value) for value in cast("list[Any]", data)]
    return int(data) if isinstance(data, float) and data.is_integer() else data
