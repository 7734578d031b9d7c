"""Files of several documents, as `mergekit-multi` takes them: named merges that refer to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ...reading import Place, is_mapping, text
from .._model import Recipe
from .._scope import Scope
from .models import without_nulls
from .reader import read


def read_documents(documents: Sequence[object], place: Place, scope: Scope) -> Recipe:
    """Read the merge without a name, or the only one that no other refers to; others become nested recipes.

    mergekit writes each named merge to a folder of its own; here they are merged in memory, unrounded.

    Raises:
        RecipeError: a document is invalid, names are not unique, or merges refer to each other in a circle or not at
            all.
    """
    return _Documents(documents, place, scope).result()


class _Documents:
    def __init__(self, documents: Sequence[object], place: Place, scope: Scope) -> None:
        self._place, self._bodies, self._places = place, dict[str, object](), dict[str, Place]()
        for number, document in enumerate(documents, 1):
            where = Place(f"{place.file}, document {number}")
            if not is_mapping(document):
                raise where.expected("a recipe of mergekit's, as all documents of a file must be", document)
            body = dict(document)
            name = text(body.pop("name"), where / "name") if body.get("name") is not None else ""
            if name in self._bodies:
                other = f"has the name {name!r} of another" if name else "has no `name`, as another has none"
                raise where.error(f"{other}; names must be unique", "Only the document of the result may go without.")
            self._bodies[name], self._places[name] = body, where
        merges = {name: partial(self._referred_to, name) for name in self._bodies if name}
        self._scope = replace(scope, merges=merges)
        self._recipes, self._referred = dict[str, Recipe | None](), set[str]()

    def result(self) -> Recipe:
        """The recipe of the result, into which all others are nested."""
        last = "" if "" in self._bodies else self._unused()
        recipe = self._recipe(last, self._places[last])
        if unused := [name for name in self._bodies if name not in {last, *self._referred}]:
            raise self._places[unused[0]].error(
                f"is the merge {unused[0]!r}, to which the result does not refer",
                "Put it into a file of its own and merge that as well, or remove it.",
            )
        return recipe

    def _unused(self) -> str:
        """The only document that no other refers to."""
        for name, place in self._places.items():
            self._recipe(name, place)
        ends = [name for name in self._bodies if name not in self._referred]
        if len(ends) != 1:
            raise self._place.error(
                f"has {len(ends)} merges to which no other refers: {', '.join(ends)}",
                "Leave out the `name` of the one that is the result.",
            )
        return ends[0]

    def _referred_to(self, name: str, place: Place) -> Recipe:
        self._referred.add(name)
        return self._recipe(name, place)

    def _recipe(self, name: str, place: Place) -> Recipe:
        if name not in self._recipes:
            self._recipes[name] = None
            self._recipes[name] = read(without_nulls(self._bodies[name]), self._places[name], self._scope)
        recipe = self._recipes[name]
        if recipe is None:
            raise place.error(f"is circular: the merge {name!r} is made from itself")
        return recipe
