"""Reading of recipes from files and data, in either dialect; nested recipes are read in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..reading import Place, is_mapping, parse_documents, read_documents
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
    scope = Scope(_document, file.parent, files=(file.resolve(),))
    return _documents(read_documents(file, piped=True), Place(str(file)), scope)


def loads(text: str, folder: str | Path = ".") -> Recipe:
    """Read a recipe from YAML text.

    Args:
        text: YAML, in polyak's form or mergekit's.
        folder: The folder that paths in it are relative to.

    Raises:
        RecipeError: the recipe is invalid.
    """
    return _documents(parse_documents(text), Place("recipe"), Scope(_document, Path(folder)))


def read(data: object, folder: str | Path = ".") -> Recipe:
    """Read a recipe from plain data: mappings, lists, text, numbers.

    Args:
        data: The contents of a recipe file.
        folder: The folder that paths in it are relative to.

    Raises:
        RecipeError: the recipe is invalid.
    """
    return _document(data, Place("recipe"), Scope(_document, Path(folder)))


def _documents(documents: Sequence[object], place: Place, scope: Scope) -> Recipe:
    """Read the only document of a file, or several that mergekit-multi would merge."""
    if len(documents) < 2:
        return _document(documents[0] if documents else None, place, scope)
    if any(is_mapping(document) and "method" in document for document in documents):
        raise place.error(
            f"has {len(documents)} documents, and polyak's own recipes are one per file",
            "Write the other merges in place of a model's `path:`, as `recipe:`.",
        )
    from .mergekit.documents import read_documents as read_several

    return read_several(documents, place, scope)


def _document(data: object, place: Place, scope: Scope) -> Recipe:
    if is_mapping(data) and "method" not in data and not _MERGEKITS.isdisjoint(data):
        from .mergekit import reader as mergekit

        return mergekit.read(data, place, scope)
    return native.read(data, place, scope)
