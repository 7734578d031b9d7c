"""Values bound to settings: defaults filled in, every value checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..errors import SettingError, suggestion
from .setting import REQUIRED, Setting


def bind(owner: str, settings: Mapping[str, Setting], values: Mapping[str, Any], models: int = 1) -> dict[str, Any]:
    """Fill in defaults and check every value; settings with a value per model become tuples of them.

    Args:
        owner: Name of the declaration in messages, such as "method 'ties'".
        settings: The settings, by name.
        values: Values of the user, by name.
        models: Number of models, for settings with a value per model.

    Raises:
        SettingError: a setting is missing, unknown, of the wrong kind or out of range.
    """
    for name in values:
        if name not in settings:
            raise SettingError(f"{owner} has no setting {name!r}. {suggestion(name, settings)}")
    return {
        name: _bound(owner, setting, values.get(name, setting.default), models) for name, setting in settings.items()
    }


def _bound(owner: str, setting: Setting, value: Any, models: int) -> Any:
    if value is REQUIRED:
        raise SettingError(f"{owner} needs a value for {setting.name!r}.")
    many = setting.per_model and isinstance(value, Sequence) and not isinstance(value, str)
    each: list[Any] = list(cast("Sequence[Any]", value)) if many else [value]
    for single in each:
        if single is REQUIRED:
            raise SettingError(f"{owner} needs a value of {setting.name!r} for every model.")
        if problem := setting.problem_with(single):
            raise SettingError(f"{setting.name!r} of {owner} must be {problem}; got {single!r}.")
    if many and len(each) != models:
        raise SettingError(f"{setting.name!r} of {owner} has {len(each)} values for {models} models.")
    if setting.kind is float:
        each = [float(single) for single in each]
    return tuple(each * (1 if many else models)) if setting.per_model else each[0]
