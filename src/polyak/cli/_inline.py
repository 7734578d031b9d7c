"""Recipes of the command line: a file, standard input, or models with a method and its settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

if TYPE_CHECKING:
    from ..recipe import Recipe

_RECIPES = (".yaml", ".yml", ".json")
_OUT = "Folder for the result, instead of the last argument."
_METHOD = "Merge method, for models without a recipe (default: linear)."
_WEIGHT = "Weights of the models, in their order: repeated, or separated by commas."
_SET = "NAME=VALUE: a setting of the method; several values separated by commas are one per model."

Out: TypeAlias = Annotated[Path | None, typer.Option("--out", "-o", help=_OUT, show_default=False)]
Method: TypeAlias = Annotated[str, typer.Option("--method", "-m", help=_METHOD, show_default=False)]
Weights: TypeAlias = Annotated[
    list[str] | None, typer.Option("--weight", "--weights", "-w", help=_WEIGHT, show_default=False)
]
Settings: TypeAlias = Annotated[list[str] | None, typer.Option("--set", "-s", help=_SET, show_default=False)]


class Inline(NamedTuple):
    """Options of a merge without a recipe file.

    Attributes:
        method: The merge method, or empty.
        base: The base model, or empty.
        weights: As typed.
        settings: As typed.
    """

    method: str = ""
    base: str = ""
    weights: Sequence[str] = ()
    settings: Sequence[str] = ()


def recipe_and_out(places: Sequence[str], out: Path | None, inline: Inline) -> tuple[Recipe, Path]:
    """The recipe of a command's arguments, and the folder for the result.

    Args:
        places: A recipe or models; without `out`, the last one is the folder for the result.
        out: That folder, if an option names it.
        inline: Options that replace a recipe.

    Raises:
        typer.BadParameter: arguments are missing, or contradict each other.
        RecipeError: the recipe is wrong.
    """
    sources = list(places) if out is not None else list(places[:-1])
    if not sources:
        raise typer.BadParameter("Give a RECIPE and OUT, or the models to merge and OUT (or -o OUT).")
    return recipe_of(sources, inline), out if out is not None else Path(places[-1])


def recipe_of(sources: Sequence[str], inline: Inline) -> Recipe:
    """The recipe that is the only source, or that merges the sources.

    Raises:
        typer.BadParameter: a recipe is given, and what it holds already by options too.
        RecipeError: the recipe is wrong.
    """
    if len(sources) != 1:
        _refuse_recipes(sources)
    if len(sources) != 1 or not _is_recipe(sources[0]):
        return _of_models(sources, inline)
    if any(inline):
        raise typer.BadParameter("the method, its settings, weights and base stand in the recipe.")
    return read_recipe(sources[0])


def _is_recipe(source: str) -> bool:
    """Tell a recipe from a model: by its suffix, or as a file that is not a checkpoint."""
    from ..checkpoint import suffixes

    path = Path(source)
    return source == "-" or path.suffix in _RECIPES or (path.is_file() and path.suffix not in suffixes())


def _refuse_recipes(sources: Sequence[str]) -> None:
    for source in sources:
        if source == "-" or Path(source).suffix in _RECIPES:
            message = f"{source} is a recipe, which stands alone: list the other models in it."
            raise typer.BadParameter(message)


def read_recipe(source: str) -> Recipe:
    """A recipe from a file, or from standard input if `source` is `-`.

    Raises:
        RecipeError: it is none, or cannot be read.
    """
    from .. import recipe as recipes

    if source != "-":
        return recipes.load(source)
    return recipes.loads(sys.stdin.read() if sys.stdin is not None else "", Path.cwd())


def _of_models(sources: Sequence[str], inline: Inline) -> Recipe:
    from dataclasses import replace

    from .. import recipe as recipes

    sources = [source if "://" in source else str(Path(source)) for source in sources]
    if twice := [source for source in dict.fromkeys(sources) if sources.count(source) > 1]:
        raise typer.BadParameter(f"{twice[0]} is given twice. Give each model once, and its share by --weight.")
    method = inline.method or "linear"
    weights = _weights(sources, inline, method)
    each = zip(_names(sources, inline), sources, weights or [None] * len(sources), strict=True)
    models = [{"name": n, "path": s} | ({} if w is None else {"weight": value_of(w)}) for n, s, w in each]
    data: dict[str, Any] = {"models": models, "method": method}
    data |= {"base": inline.base} if inline.base else {}
    if inline.settings:
        data["settings"] = settings_of(inline.settings)
        if weights and "weight" in data["settings"]:
            raise typer.BadParameter("weights are given by --weight too.", param_hint="--set")
    return replace(recipes.read(data, Path()), door="models")


def _weights(sources: Sequence[str], inline: Inline, method: str) -> Sequence[str]:
    from ..methods import resolve

    weights = [weight for text in inline.weights for weight in text.split(",")]
    if weights and not ((setting := resolve(method).settings.get("weight")) and setting.per_model):
        raise typer.BadParameter(f"method {method!r} has no weights.", param_hint="--weight")
    if weights and len(weights) != len(sources):
        raise typer.BadParameter(f"{len(sources)} models have {len(weights)} weights.", param_hint="--weight")
    return weights


def _names(sources: Sequence[str], inline: Inline) -> Sequence[str]:
    """The last part of each path, or the whole path where another model or the base has the name."""
    from ..recipe import BASE

    names = [Path(source).name for source in sources]
    taken = ["", *names, *([BASE] if inline.base else [])]
    whole = [f"./{source}" if source == BASE else source for source in sources]
    return [name if taken.count(name) == 1 else path for name, path in zip(names, whole, strict=True)]


def settings_of(texts: Sequence[str]) -> Mapping[str, Any]:
    """Settings by name, from `NAME=VALUE`; dashes in a name count as underscores.

    Raises:
        typer.BadParameter: a text is not of this form, or a setting is given twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="--set")
        if name in settings:
            raise typer.BadParameter(f"{name} is given twice.", param_hint="--set")
        settings[name] = value_of(value)
    return settings


def value_of(text: str) -> Any:
    """A value as YAML reads it; several, separated by commas, as a list."""
    from ..reading import resolve_scalar

    values: list[Any] = []
    for part in text.split(","):
        try:
            values.append(resolve_scalar(part.strip()))
        except ValueError:
            values.append(part.strip())
    return values[0] if len(values) == 1 else values
