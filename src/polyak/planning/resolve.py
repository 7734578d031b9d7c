"""Resolution of recipe and rules into the method and settings of each tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

from ..checkpoint import layer_of
from ..errors import RecipeError, Remedy, SettingError, suggestion
from ..methods import Method, Setting
from ..methods import resolve as method_named
from ..reading import compiled, search
from ..recipe import Cases, Gradient, Recipe, Rule, Search, Settings, Value

WEIGHT = "weight"  # the only setting that rules with another method inherit


@dataclass(frozen=True)
class Depth:
    """Depth of a tensor: its layer, and the relative position of the layer in its stack.

    Attributes:
        layer: The first number between dots in the name; None outside the stacks.
        t: layer / (layers - 1), or 1 in a stack of one; None outside the stacks. In a slice, 0 at its first layer and
            1 at its last.
    """

    layer: int | None = None
    t: float | None = None


def depths(names: Iterable[str]) -> dict[str, Depth]:
    """Depths of tensors by their names: `PREFIX.0.`, `PREFIX.1.`, ... is a stack of layers."""
    layers = {name: located[:2] for name in names if (located := layer_of(name))}
    ends: dict[str, tuple[int, int]] = {}
    for stack, layer in layers.values():
        first, last = ends.get(stack, (layer, layer))
        ends[stack] = min(layer, first), max(layer, last)
    return {name: Depth(i, _between(i, *ends[stack])) for name, (stack, i) in layers.items()}


_depths_of = lru_cache(maxsize=4)(depths)  # candidates of a search have the same names


def _between(layer: int, first: int, last: int) -> float:
    return (layer - first) / (last - first) if last > first else 1.0


OUTSIDE = Depth()


class Treatment:
    """Resolves a recipe to a method and settings per tensor."""

    def __init__(self, recipe: Recipe, names: Iterable[str]) -> None:
        self._recipe, self._depths = recipe, _depths_of(tuple(names))
        self._rules = [_Choice(recipe, rule, i) for i, rule in enumerate(recipe.rules)]
        self._otherwise = _Choice(recipe, None, None)

    def of(self, name: str) -> tuple[int | None, Method, dict[str, Any]]:
        """The number of the rule that matched (or None), the method, and the checked value of every setting.

        Raises:
            RecipeError: a gradient applies to a tensor outside the layers, or a setting is invalid.
        """
        depth = self._depths.get(name, OUTSIDE)
        choice = next((rule for rule in self._rules if rule.matches(name, depth)), self._otherwise)
        return choice.number, choice.method, choice.settings(name, depth)

    @property
    def methods(self) -> list[Method]:
        """Every method that may be used."""
        return [choice.method for choice in (*self._rules, self._otherwise)]

    @property
    def notes(self) -> list[str]:
        """Notes on settings of models and recipe that a rule with another method drops."""
        return [note for rule in self._rules if (note := rule.note())]


class _Choice:
    """Method and settings of the recipe itself or of one of its rules, not yet resolved for a tensor."""

    def __init__(self, recipe: Recipe, rule: Rule | None, number: int | None) -> None:
        self.number, self._rule, self._recipe = number, rule, recipe
        self.method = method_named((rule and rule.method) or recipe.method)
        self._pattern = compiled(rule.match) if rule else None
        self._shared = {**self._inherited(recipe.settings), **(rule.settings if rule else {})}
        self._own = [self._inherited(model.settings) for model in recipe.models]
        self._check_names()
        self._constant: dict[str, Any] | None = None

    def matches(self, name: str, depth: Depth) -> bool:
        assert self._rule and self._pattern
        layers = self._rule.layers
        if layers is not None and (depth.layer is None or not layers[0] <= depth.layer < layers[1]):
            return False
        return self._pattern.search(name)

    def note(self) -> str | None:
        """Note on the settings that are dropped because the rule changes the method, or None."""
        if self._rule is None:
            return None
        outer = {name for settings in self._outer for name in settings}
        own = {name for settings in (self._rule.settings, *self._rule.models.values()) for name in settings}
        dropped = sorted(outer - own - {name for settings in self._outer for name in self._inherited(settings)})
        if not dropped:
            return None
        kept = ", weights are kept" if WEIGHT in outer - {*dropped} else ""
        return (
            f"rule {(self.number or 0) + 1} ({self._rule.match!r}) changes the method from {self._recipe.method} to "
            f"{self.method.name}: {', '.join(dropped)} dropped{kept}."
        )

    @property
    def _outer(self) -> list[Settings]:
        """The settings that apply where no rule does."""
        return [self._recipe.settings, *(model.settings for model in self._recipe.models)]

    def _inherited(self, settings: Settings) -> Settings:
        """The settings that a rule inherits: all, or the weights alone if it changes the method."""
        if self._rule is None or self._rule.method in (None, self._recipe.method):
            return settings
        weighted = WEIGHT in settings and WEIGHT in self.method.settings
        return {WEIGHT: settings[WEIGHT]} if weighted else {}

    def settings(self, name: str, depth: Depth) -> dict[str, Any]:
        if self._constant is not None:
            return self._constant
        values = {key: self._number(value, name, depth, key) for key, value in self._given.items()}
        bound = self.method.bind(values, len(self._recipe.models))
        if not self._varies:
            self._constant = bound
        return bound

    @cached_property
    def _given(self) -> dict[str, Any]:
        """One value per setting, or a tuple of one per model, in which gradients and cases are not yet resolved."""
        values: dict[str, Any] = {k: v for k, v in self._shared.items() if not self._setting(k).per_model}
        for setting in self.method.settings.values():
            if setting.per_model:
                each = [self._for_model(setting, i) for i in range(len(self._recipe.models))]
                values[setting.name] = tuple(each)
        return values

    def _for_model(self, setting: Setting, index: int) -> Any:
        """The first that exists of the rule's value for a model, the rule's, the model's, the recipe's, the default."""
        model, rule = self._recipe.models[index].name, self._rule
        for settings in (rule.models.get(model, {}) if rule else {}, rule.settings if rule else {}, self._own[index]):
            if setting.name in settings:
                return _of_model(settings[setting.name], index)
        return _of_model(self._shared.get(setting.name, setting.default), index)

    @cached_property
    def _varies(self) -> bool:
        values = [v for value in self._given.values() for v in (value if isinstance(value, tuple) else (value,))]
        return any(isinstance(v, Gradient | Cases) for v in values)

    def _number(self, value: Any, name: str, depth: Depth, key: str) -> Any:
        if isinstance(value, tuple):
            return tuple(self._number(item, name, depth, key) for item in value)
        if isinstance(value, Search):
            raise RecipeError(
                f"{key!r} is still a search range: use `polyak search`, and merge the recipe that it writes."
            )
        if isinstance(value, Cases):
            hit = next((v for pattern, v in value.cases if search(pattern, name)), self._setting(key).default)
            return self._number(hit, name, depth, key)
        return _along(value, depth, name, key) if isinstance(value, Gradient) else value

    def _setting(self, name: str) -> Setting:
        setting = self.method.settings.get(name)
        if setting is None:
            raise SettingError(
                f"method {self.method.name!r} has no setting {name!r}. {suggestion(name, self.method.settings)}"
            )
        return setting

    def _check_names(self) -> None:
        for name in self._shared:
            self._setting(name)
        per_model = [*self._own, *(self._rule.models.values() if self._rule else ())]
        for name in {name for settings in per_model for name in settings}:
            if not self._setting(name).per_model:
                raise SettingError(
                    f"{name!r} of method {self.method.name!r} is not a per-model setting; put it under `settings:`."
                )


def _of_model(value: Value | None, index: int) -> Any:
    return value[index] if isinstance(value, tuple | list) else value


def _along(gradient: Gradient, depth: Depth, name: str, key: str) -> float:
    """Interpolate a gradient at a tensor's depth."""
    if depth.t is None:
        if gradient.outside is None:
            raise RecipeError(
                f"{key!r} is a gradient over the layers, but {name!r} is in no layer.",
                remedies=[Remedy.OUTSIDE],
            )
        return cast("float", gradient.outside)  # recipes with search ranges are refused
    values = cast("tuple[float, ...]", gradient.values)
    position = depth.t * (len(values) - 1)
    left = int(position)
    right, share = min(left + 1, len(values) - 1), position - left
    return (1 - share) * values[left] + share * values[right]  # exact at both ends
