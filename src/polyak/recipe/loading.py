"""Reading of recipes from files and data, in either dialect; nested recipes are read in place."""

from __future__ import annotations

from pathlib import Path

from ..reading import Place, is_mapping, parse_yaml, read_file
from . import native
from ._model import Recipe
from ._scope import Scope

_MERGEKITS = frozenset({"merge_method", "genome", "gate_mode", "experts"})  # keys that only mergekit's files have


def load(path: str | Path) -> Recipe:
    """Read a recipe from a YAML or JSON file, in polyak's form or mergekit's.

    Args:
        path: The file; relative paths in it are relative to its folder.

    Raises:
        RecipeError: the file is missing or damaged, or the recipe is invalid.
    """
    file = Path(path)
    data = read_file(file)
    return _document(data, Place(str(file)), Scope(_document, file.parent, files=(file.resolve(),)))


def loads(text: str, folder: str | Path = ".") -> Recipe:
    """Read a recipe from YAML text.

    Args:
        text: YAML, in polyak's form or mergekit's.
        folder: The folder that paths in it are relative to.

    Raises:
        RecipeError: the recipe is invalid.
    """
    return read(parse_yaml(text), folder)


def read(data: object, folder: str | Path = ".") -> Recipe:
    """Read a recipe from plain data: mappings, lists, text, numbers.

    Args:
        data: The contents of a recipe file.
        folder: The folder that paths in it are relative to.

    Raises:
        RecipeError: the recipe is invalid.
    """
    return _document(data, Place("recipe"), Scope(_document, Path(folder)))


def _document(data: object, place: Place, scope: Scope) -> Recipe:
    if is_mapping(data) and "method" not in data and not _MERGEKITS.isdisjoint(data):
        from .mergekit import reader as mergekit

        return mergekit.read(data, place, scope)
    return native.read(data, place, scope)
