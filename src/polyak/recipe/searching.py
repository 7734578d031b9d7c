"""Search ranges in recipes: listed, and replaced by values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from ._model import Cases, Gradient, Model, Recipe, Rule, Scalar, Search, Settings, Source, Value, with_shared

if TYPE_CHECKING:
    from ..methods import Setting


@dataclass(frozen=True)
class Sought:
    """One search range of a recipe.

    Attributes:
        place: Its path in the recipe, such as `models.maths.weight`; unique in the recipe.
        search: The range or choices.
        setting: The setting whose value it is, or is a part of.
        models: Number of models of the enclosing recipe.
    """

    place: str
    search: Search
    setting: Setting
    models: int


Visit: TypeAlias = Callable[[Sought], Any]


def sought(recipe: Recipe) -> tuple[Sought, ...]:
    """All search ranges of a recipe, in order."""
    ranges: list[Sought] = []

    def keep(each: Sought) -> Search:
        ranges.append(each)
        return each.search

    _Walk(keep).recipe(recipe, "")
    return tuple(ranges)


def filled(recipe: Recipe, values: Mapping[str, Scalar]) -> Recipe:
    """The recipe with values instead of search ranges.

    Args:
        recipe: A recipe with search ranges.
        values: A value per range, by the `place` that `sought` returns.
    """
    return with_shared(_Walk(lambda each: values[each.place]).recipe(recipe, ""))


class _Walk:
    """Replaces each search range of a recipe by what a function returns for it."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def recipe(self, recipe: Recipe, at: str) -> Recipe:
        count = len(recipe.models)
        base = self._source(recipe.base, f"{at}base.") if recipe.base else None
        modules = (
            replace(part, recipe=self._module(part.recipe, recipe.base, base, f"{at}modules[{i}]."))
            for i, part in enumerate(recipe.modules)
        )
        return replace(
            recipe,
            base=base,
            models=tuple(self._model(model, recipe, f"{at}models.{model.name}.") for model in recipe.models),
            settings=self._settings(recipe.settings, recipe.method, count, f"{at}settings."),
            rules=tuple(self._rule(rule, recipe, f"{at}rules[{i}].") for i, rule in enumerate(recipe.rules)),
            slices=tuple(self.recipe(part, f"{at}slices[{i}].") for i, part in enumerate(recipe.slices)),
            modules=tuple(modules),
        )

    def _module(self, recipe: Recipe, shared: Source | None, base: Source | None, at: str) -> Recipe:
        """Walk through a module; a base that it inherits is replaced by the walked base, not walked again."""
        if shared is None or recipe.base != shared:
            return self.recipe(recipe, at)
        return replace(self.recipe(replace(recipe, base=None), at), base=base)

    def _source(self, source: Source, at: str) -> Source:
        return source if source.recipe is None else replace(source, recipe=self.recipe(source.recipe, f"{at}recipe."))

    def _model(self, model: Model, recipe: Recipe, at: str) -> Model:
        settings = self._settings(model.settings, recipe.method, len(recipe.models), at)
        return replace(model, source=self._source(model.source, at), settings=settings)

    def _rule(self, rule: Rule, recipe: Recipe, at: str) -> Rule:
        method, count = rule.method or recipe.method, len(recipe.models)
        own = {
            name: self._settings(settings, method, count, f"{at}models.{name}.")
            for name, settings in rule.models.items()
        }
        settings = self._settings(rule.settings, method, count, f"{at}settings.")
        return replace(rule, settings=settings, models=MappingProxyType(own))

    def _settings(self, settings: Settings, method: str, models: int, at: str) -> Settings:
        if not any(_has_search(value) for value in settings.values()):
            return settings
        from ..methods import resolve

        declared = resolve(method).settings
        return MappingProxyType(
            {
                name: self._value(value, Sought(f"{at}{name}", Search(), declared[name], models))
                if _has_search(value)
                else value
                for name, value in settings.items()
            }
        )

    def _value(self, value: Value, here: Sought) -> Any:
        if isinstance(value, tuple):  # one per model, in recipes made in Python
            return tuple(self._value(item, _at(here, f"[{i}]")) for i, item in enumerate(value))
        if isinstance(value, Search):
            return self._visit(replace(here, search=value))
        if isinstance(value, Cases):
            cases = (
                (match, self._value(item, _at(here, f".cases[{i}]"))) for i, (match, item) in enumerate(value.cases)
            )
            return Cases(tuple(cases))
        if isinstance(value, Gradient):
            values = tuple(self._value(item, _at(here, f".gradient[{i}]")) for i, item in enumerate(value.values))
            outside = None if value.outside is None else self._value(value.outside, _at(here, ".outside"))
            return Gradient(values, outside)
        return value


def _at(here: Sought, more: str) -> Sought:
    return replace(here, place=here.place + more)


def _has_search(value: Any) -> bool:
    if isinstance(value, Cases):
        return any(_has_search(item) for _, item in value.cases)
    if isinstance(value, Gradient):
        return any(_has_search(item) for item in (*value.values, value.outside))
    return isinstance(value, Search) or (isinstance(value, tuple) and any(_has_search(item) for item in value))
