"""Context of a recipe that is being read: the folder of its paths, and the recipes around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from ..reading import Place, is_mapping, read_file, text
from ._model import Recipe

DEEPEST = 16  # nesting depth of recipes
MOST = 1000  # nested recipes in all: if each file refers to two others, their number doubles at every level


@dataclass(frozen=True)
class Scope:
    """Folder of relative paths, and the recipes around the one that is being read.

    Attributes:
        document: Reads a recipe of either dialect.
        folder: The folder of the outermost recipe, to which paths are relative once it is read.
        prefix: Relative path from there to the folder of the file that is being read.
        files: The enclosing files, outermost first.
        depth: Number of enclosing recipes.
        count: Counts nested recipes.
        merges: Named merges of the same file, which models may be; each is read where it is referred to.
    """

    document: Callable[[object, Place, Scope], Recipe]
    folder: Path
    prefix: str = ""
    files: tuple[Path, ...] = ()
    depth: int = 0
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    merges: Mapping[str, Callable[[Place], Recipe]] = field(default_factory=dict[str, "Callable[[Place], Recipe]"])

    def rebased(self, path: str) -> str:
        """A path in the file that is being read, made relative to `folder`."""
        return str(PurePath(self.prefix, path)) if self.prefix and "://" not in path else path

    def here(self, path: str) -> Path:
        """Resolve a path of the file that is being read."""
        return self.folder / self.prefix / path

    def nested(self, value: object, place: Place) -> Recipe:
        """Read a recipe inside a recipe: a mapping, or the path of a file.

        Raises:
            RecipeError: it contains itself, or is nested too deeply, or cannot be read.
        """
        if self.depth == DEEPEST or next(self.count) > MOST:
            raise place.error(f"is nested too far: recipes may be {DEEPEST} levels deep, and {MOST} in all")
        inner = replace(self, depth=self.depth + 1)
        if is_mapping(value):
            return self.document(value, place, inner)
        return inner._file(text(value, place), place)

    def _file(self, path: str, place: Place) -> Recipe:
        if "://" in path:
            raise place.expected("the path of a recipe on this machine", path)
        file = self.here(path)
        if (real := file.resolve()) in self.files:
            raise place.error(f"is circular: {file} is being read already")
        inner = replace(self, prefix=str(PurePath(self.prefix, path).parent), files=(*self.files, real))
        return self.document(read_file(file), Place(str(file)), inner)
