"""Settings that a method accepts: uneven, at the ends of their ranges, negative, zero, large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from ..errors import SettingError
from ..methods import REQUIRED, Method, Setting


def uneven(method: Method, k: int) -> dict[str, Any]:
    """A value for every numeric setting: different per model, and none neutral.

    Values that the method refuses together are moved towards the defaults until it accepts them.
    """
    values = {name: _uneven(s, k) for name, s in method.settings.items() if s.kind in (float, int)}
    for _ in range(8):
        if accepts(method, values, k):
            break
        values = {name: _halfway(value, method.settings[name]) for name, value in values.items()}
    return values


def accepts(method: Method, settings: Mapping[str, Any], k: int) -> bool:
    try:
        method.bind(settings, k)
    except SettingError:
        return False
    return True


def _halfway(value: Any, setting: Setting) -> Any:
    """The midpoint between a value and the default."""
    if setting.kind is int or setting.default is REQUIRED:
        return value
    halves = [(number + setting.default) / 2 for number in (value if setting.per_model else [value])]
    return halves if setting.per_model else halves[0]


def _uneven(setting: Setting, k: int) -> Any:
    if setting.per_model:
        return [_between(setting, (i + 1) / (k + 1)) for i in range(k)]
    return _between(setting, 0.3) if setting.kind is float or setting.default is REQUIRED else setting.default


def _between(setting: Setting, share: float) -> float | int:
    low, high = (setting.range.low, setting.range.high) if setting.range else (0.2, 1.2)
    low, high = (max(low, -1.0), high) if math.isinf(low) else (low, high)
    value = low + share * (1 if math.isinf(high) else high - low)
    return math.ceil(value) if setting.kind is int else value


def choices(method: Method, k: int) -> Iterator[dict[str, Any]]:
    """Every combination of the words and switches among the settings that the method accepts, numbers uneven."""
    numbers = uneven(method, k)
    for words in combinations(method):
        if accepts(method, numbers | words, k):  # these words may not go together
            yield numbers | words


def combinations(method: Method) -> Iterator[dict[str, Any]]:
    """Every combination of the words and switches among the settings."""
    kinds = {name: (True, False) if s.kind is bool else s.kind for name, s in method.settings.items()}
    words = {name: kind for name, kind in kinds.items() if isinstance(kind, tuple)}
    for combination in product(*words.values()):
        yield dict(zip(words, combination, strict=True))


def single_words(method: Method) -> list[dict[str, Any]]:
    """The defaults, then each other word or switch alone."""
    words: list[dict[str, Any]] = [{}]
    for name, setting in method.settings.items():
        values = (True, False) if setting.kind is bool else setting.kind
        words += [{name: value} for value in values if value != setting.default] if isinstance(values, tuple) else []
    return words


def extremes(method: Method, k: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names of special settings, and values for all numbers among the settings, as far as the method accepts them.

    Values are small multiples of powers of two: sums of such multiples of dyadic numbers are exact in any order.
    """
    numbers = {name: s for name, s in method.settings.items() if s.kind in (float, int)}
    yield "defaults", {}
    for title, value_of in _EXTREMES.items():
        special = {name: value_of(s, k, at) for at, (name, s) in enumerate(numbers.items())}
        special = {name: value for name, value in special.items() if value is not None}
        if special and accepts(method, uneven(method, k) | special, k):
            yield title, uneven(method, k) | special


def _negative_weights(setting: Setting, k: int, _: int) -> Any:
    values = [(-0.5, 2.0, 0.75, -1.25, 3.0)[i % 5] for i in range(k)]
    return values if setting.per_model and _admits(setting, *values) else None


def _negative_numbers(setting: Setting, _: int, __: int) -> Any:
    return -1.5 if not setting.per_model and setting.kind is float and _admits(setting, -1.5) else None


def _weights_of_zero(setting: Setting, k: int, at: int) -> Any:
    values = [0.0 if i == at % k else (1.0, 0.5, 0.75)[i % 3] for i in range(k)]
    return values if setting.per_model and k > 1 and _admits(setting, *values) else None


def _all_but_one_zero(setting: Setting, k: int, at: int) -> Any:
    values = [0.75 if i == k - 1 else 0.0 for i in range(k)]
    return values if setting.per_model and at == 0 and _admits(setting, *values) else None


def _large_weights(setting: Setting, k: int, _: int) -> Any:
    values = [1024.0 * (1, 3, -0.5)[i % 3] for i in range(k)] if setting.per_model else [64.0]
    if setting.kind is not float or not _admits(setting, *values):
        return None
    return values if setting.per_model else values[0]


def _lowest(setting: Setting, k: int, _: int) -> Any:
    if setting.range is None or math.isinf(setting.range.low):
        return None
    low = setting.range.low + (2.0**-10 if setting.range.above else 0)
    return _everywhere(setting, low, k)


def _highest(setting: Setting, k: int, _: int) -> Any:
    if setting.range is None or setting.kind is int:  # many steps take long
        return None
    return _everywhere(setting, min(setting.range.high, 2.0**60), k)


def _one_more(setting: Setting, _: int, __: int) -> Any:
    return setting.default + 1 if setting.kind is int and _admits(setting, setting.default + 1) else None


def _everywhere(setting: Setting, value: float, k: int) -> Any:
    number = math.ceil(value) if setting.kind is int else float(value)
    return [number] * k if setting.per_model else number


def _admits(setting: Setting, *values: float) -> bool:
    return all(setting.problem_with(value) is None for value in values)


_EXTREMES: Mapping[str, Callable[[Setting, int, int], Any]] = {
    "negative weights": _negative_weights,
    "negative numbers": _negative_numbers,
    "weights of zero": _weights_of_zero,
    "all weights but one zero": _all_but_one_zero,
    "large weights": _large_weights,
    "numbers at their lowest": _lowest,
    "numbers at their highest": _highest,
    "one more than the default": _one_more,
}


def of_models(method: Method, settings: Mapping[str, Any], models: Sequence[int]) -> dict[str, Any]:
    """The settings of some of the models, in the order given."""
    return {n: [v[i] for i in models] if method.settings[n].per_model else v for n, v in settings.items()}


def gain(method: Method, settings: Mapping[str, Any]) -> float:
    """The largest weight or factor, by which entries may be scaled before they cancel."""
    free = [name for name, setting in method.settings.items() if setting.kind is float and setting.range is None]
    numbers = np.concatenate([np.ravel(np.float64(settings.get(name, 1.0))) for name in free] or [np.ones(1)])
    return max(float(np.max(np.abs(numbers))), 1.0)
