"""Values of mergekit's `parameters:`, which may be filtered by tensor name, vary with depth, and have fallbacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, cast

from ...reading import Place, Table, is_list, is_mapping, mapping, number, text
from .._model import Cases, Gradient, Scalar, Value
from .._values import check_scalar, unknown
from .methods import Parameter, Translation

if TYPE_CHECKING:
    from ...methods import Method

Part: TypeAlias = tuple[str, Scalar | Gradient]  # a pattern and a value
PartsByName: TypeAlias = Mapping[str, Sequence[Part]]  # by the name of the parameter, the first match first
EVERYTHING = ".*"  # the pattern of a value without a filter
NONE: PartsByName = MappingProxyType({})


def joined(inner: PartsByName, outer: PartsByName) -> PartsByName:
    """Parameters of an inner scope, which fall back to those of an outer one."""
    return {name: [*inner.get(name, ()), *outer.get(name, ())] for name in {**inner, **outer}}


class Parameters:
    """The parameters of one method."""

    def __init__(self, method: Method, translation: Translation) -> None:
        self._method, self._always = method, translation.always
        self._known = {parameter.name: parameter for parameter in translation.parameters}

    def read(self, value: object, place: Place, *, of_model: bool = False) -> PartsByName:
        """Read a block of parameters, global or of a model.

        Raises:
            RecipeError: a parameter is unknown, has no effect there, or has an invalid value.
        """
        parameters: dict[str, Sequence[Part]] = {}
        for name, written in ({} if value is None else mapping(value, place)).items():
            parameter = self._known.get(name)
            if parameter is None:
                raise unknown(place / name, f"mergekit's {self._method.name!r}", self._known)
            if of_model and parameter.setting and not parameter.per_model:
                raise (place / name).error(
                    "has no effect in mergekit: it applies to the whole merge",
                    "Move it to the `parameters:` at the top.",
                )
            parameters[name] = self._parts(written, place / name, parameter)
        return parameters

    def refuse_outside(self, table: Table) -> None:
        """Refuse parameters that were written next to `parameters:` instead of below it.

        Raises:
            RecipeError: one of the keys that are left is a parameter of the method.
        """
        for name in table.left():
            if name in self._known:
                raise (table.place / name).error(
                    f"is a parameter of mergekit's {self._method.name!r}", "Write it below `parameters:`."
                )

    def of_model(self, own: PartsByName, everyone: PartsByName, place: Place) -> dict[str, Value]:
        """Settings from a model's own parameters, which fall back to the global ones and the default."""
        settings: dict[str, Value] = {}
        for name, parts in own.items():
            parameter = self._known[name]
            if parts and parameter.setting:
                settings.update(self._settled(parameter, [*parts, *everyone.get(name, ())], place / name))
        return settings

    def of_everyone(
        self, everyone: PartsByName, owns: Sequence[tuple[PartsByName, Place]], place: Place
    ) -> dict[str, Value]:
        """Settings of the recipe from the global parameters, with all of mergekit's defaults."""
        settings: dict[str, Value] = {**self._always}
        for parameter in self._known.values():
            lacking = next((where for own, where in owns if not own.get(parameter.name)), None)
            if parameter.setting is None or (parameter.per_model and lacking is None):
                continue
            parts = everyone.get(parameter.name, ())
            if not parts and parameter.default is None:
                where = lacking if parameter.per_model and lacking else place
                raise where.error(f"has no {parameter.name!r}, which mergekit's {self._method.name!r} needs")
            settings.update(self._settled(parameter, parts, place / parameter.name))
        return settings

    def _settled(self, parameter: Parameter, parts: Iterable[Part], place: Place) -> dict[str, Value]:
        """Join parts into one value, in which the first pattern that matches a tensor's name applies."""
        assert parameter.setting
        reached: list[Part] = []
        for part in [*parts, *([] if parameter.default is None else [(EVERYTHING, parameter.default)])]:
            reached.append(part)
            if part[0] == EVERYTHING:
                return _named(parameter.setting, reached)
        raise place.error("has no value for tensors that none of its filters matches", "End it with `- value: ...`.")

    def _parts(self, value: object, place: Place, parameter: Parameter) -> Sequence[Part]:
        """A scalar, a gradient, one filtered value, or a list of them."""
        if is_mapping(value):
            return [self._filtered(value, place, parameter)]
        if is_list(value):
            if any(is_mapping(item) for item in value):
                return [self._filtered(item, place[i], parameter) for i, item in enumerate(value)]
            if not value:
                return []
        return [(EVERYTHING, self._leaf(value, place, parameter))]

    def _filtered(self, value: object, place: Place, parameter: Parameter) -> Part:
        """One value for the tensors whose names contain the filter."""
        table = Table(value, place)
        leaf = table.take("value", lambda item, where: self._leaf(item, where, parameter))
        substring = table.take("filter", lambda item, where: "*" if item in (None, "") else text(item, where), "*")
        table.finish()
        return EVERYTHING if substring == "*" else re.escape(substring), leaf

    def _leaf(self, value: object, place: Place, parameter: Parameter) -> Scalar | Gradient:
        if not is_list(value):
            return self._scalar(value, place, parameter)
        if parameter.read is not number:
            raise place.error("is a gradient, which only numbers may be")
        if not value:
            raise place.expected("a number or a list of numbers", value)
        values = [cast("float", self._scalar(item, place[i], parameter)) for i, item in enumerate(value)]
        # In mergekit, embedding, final norm and head are at depth zero.
        return Gradient(tuple(values), outside=values[0]) if len(values) > 1 else values[0]

    def _scalar(self, value: object, place: Place, parameter: Parameter) -> Scalar:
        parsed = parameter.read(value, place)
        setting = self._method.settings.get(parameter.setting or "")
        return parsed if setting is None else check_scalar(parsed, place, setting)


def _named(setting: str, parts: Sequence[Part]) -> dict[str, Value]:
    return {setting: parts[0][1] if len(parts) == 1 else Cases(tuple(parts))}
