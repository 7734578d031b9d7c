"""Values of settings: scalars, gradients over depth and cases by name, checked against the method's signature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard, cast

from ..errors import SettingError, suggestion
from ..reading import Place, Table, boolean, each, is_list, is_mapping, is_small, number, pattern
from ._model import NOTHING, Cases, Gradient, Scalar, Search, Settings, Value

if TYPE_CHECKING:
    from ..methods import Method, Setting


def frozen(settings: Mapping[str, Value]) -> Settings:
    return MappingProxyType(dict(settings)) if settings else NOTHING


def read_value(value: object, place: Place, setting: Setting) -> Value:
    """Read one value of a setting in any form.

    Raises:
        SettingError: it is of the wrong kind or out of range.
        RecipeError: its form is wrong.
    """
    if not is_mapping(value):
        return check_scalar(value, place, setting)
    table = Table(value, place)
    if "search" in table:
        return _read_search(table, setting)
    if "gradient" in table or "lines" in table:
        return _read_along(table, setting)
    if "cases" in table:
        cases = Cases(table.take("cases", each(lambda case, where: _read_case(case, where, setting))))
        table.finish()
        return cases
    raise place.expected("a value, {gradient: [...]}, {lines: {...}}, {cases: [...]} or {search: [low, high]}", value)


def read_settings(table: Table, settings: Mapping[str, Setting], owner: str) -> dict[str, Value]:
    """Read the remaining keys of a table as settings, each with one value.

    Raises:
        SettingError: `owner` (such as "method 'ties'") has no such setting, or cannot take this value.
    """
    values: dict[str, Value] = {}
    for name in table.left():
        if name not in settings:
            raise unknown(table.place / name, owner, settings)
        setting = settings[name]
        values[name] = table.take(name, lambda value, place, s=setting: read_value(value, place, s))
    return values


def unknown(place: Place, owner: str, names: Iterable[str]) -> SettingError:
    name = place.path.rpartition(".")[2]
    return SettingError(str(place.error(f"is unknown: {owner} has no such setting", suggestion(name, names))))


def per_model(methods: Iterable[Method]) -> dict[str, Setting]:
    """The per-model settings of these methods; of several settings of one name, the first method's."""
    settings: dict[str, Setting] = {}
    for method in methods:
        for name, setting in method.settings.items():
            if setting.per_model:
                settings.setdefault(name, setting)
    return settings


def check_scalar(value: object, place: Place, setting: Setting) -> Scalar:
    """Check a value; where the setting is a float, integers are converted.

    Raises:
        SettingError: it is of the wrong kind or out of range.
    """
    huge = isinstance(value, int | float) and not is_small(value)
    if problem := "a finite number of at most 64 bits" if huge else setting.problem_with(value):
        words = setting.kind if isinstance(setting.kind, tuple) and isinstance(value, str) else ()
        near = suggestion(str(value), words) if words else ""
        raise SettingError(str(place.expected(problem, value, near if near.startswith("Did") else "")))
    return float(cast("float", value)) if setting.kind is float else cast("Scalar", value)


def _read_case(value: object, place: Place, setting: Setting) -> tuple[str, Scalar | Gradient | Search]:
    table = Table(value, place)
    match = table.take("match", pattern)
    case_value = table.take("value", lambda item, where: _read_scalar_or_gradient(item, where, setting))
    table.finish()
    return match, case_value


def _read_scalar_or_gradient(value: object, place: Place, setting: Setting) -> Scalar | Gradient | Search:
    if not is_mapping(value):
        return check_scalar(value, place, setting)
    table = Table(value, place)
    return _read_search(table, setting) if "search" in table else _read_along(table, setting)


def _read_search(table: Table, setting: Setting) -> Search:
    """Read a search range: `search: [low, high]`, optionally with `log:`, or `search: {choices: [...]}`."""
    place = table.place / "search"
    if is_mapping(table.peek("search")):
        search = Search(choices=table.take("search", lambda value, where: _read_choices(value, where, setting)))
        table.finish()
        return search
    if setting.kind not in (float, int):
        raise place.expected("{choices: [...]}, since the setting is not a number", table.peek("search"))
    ends = table.take("search", each(lambda value, where: _read_end(value, where, setting)))
    log = table.take("log", boolean, False)
    table.finish()
    if len(ends) != 2 or ends[0] >= ends[1]:
        raise place.expected("[low, high], with low below high", list(ends))
    if log and ends[0] <= 0:
        raise place.expected("above 0 to be sampled on a logarithmic scale (`log: true`)", list(ends))
    return Search(ends[0], ends[1], log)


def _read_end(value: object, place: Place, setting: Setting) -> float:
    return cast("float", check_scalar(value, place, setting))


def _read_choices(value: object, place: Place, setting: Setting) -> tuple[Scalar, ...]:
    table = Table(value, place)
    choices = table.take("choices", each(lambda choice, where: check_scalar(choice, where, setting)))
    table.finish()
    if len(set(choices)) < max(2, len(choices)):
        raise (place / "choices").expected("two or more distinct values", list(choices))
    return choices


def _read_along(table: Table, setting: Setting) -> Gradient:
    """Read a number that varies with depth: `gradient:`, optionally with `outside:`, or `lines:`."""
    if setting.kind is not float:
        raise SettingError(str(table.place.error(f"is a gradient, but {setting.name!r} is not a continuous number")))

    def read(value: object, place: Place) -> float | Search:
        if is_mapping(value):
            return _read_search(Table(value, place), setting)
        return cast("float", check_scalar(number(value, place), place, setting))

    if "lines" in table:
        gradient = table.take("lines", lambda value, place: _read_lines(value, place, setting))
    else:
        gradient = Gradient(table.take("gradient", each(read)), table.take("outside", read, None))
    table.finish()
    return gradient


def _read_lines(value: object, place: Place, setting: Setting) -> Gradient:
    """LiNeS (Wang et al., 2025, arXiv:2410.17146): alpha outside the layers, alpha to alpha + beta along them."""
    table = Table(value, place)
    alpha = table.take("alpha", number)
    beta = table.take("beta", number, 1 - alpha)
    table.finish()
    ends = [cast("float", check_scalar(end, place, setting)) for end in (alpha, alpha + beta)]
    return Gradient(tuple(ends), outside=ends[0])


def is_list_per_model(value: object, setting: Setting | None) -> TypeGuard[Sequence[object]]:
    """Test for a list with one value per model."""
    return setting is not None and setting.per_model and is_list(value)
