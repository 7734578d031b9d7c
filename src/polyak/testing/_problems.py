"""Problems and settings that any method can be given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingError
from ..methods import REQUIRED, Method, Setting, Stat


@dataclass(frozen=True)
class Problem:
    """The inputs of one merge.

    Attributes:
        tensors: The models' tensors, (k, *shape).
        base: The base's, (*shape).
        chance: Numbers in [0, 1), (k, *shape).
        statistics: What is known of the models, by the statistic's name, stacked.
    """

    tensors: Any
    base: Any
    chance: Any
    statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def k(self) -> int:
        return int(self.tensors.shape[0])

    def merge(self, method: Method, settings: Mapping[str, Any]) -> Any:
        """Merge by the definition."""
        base = self.base if method.uses_base else None
        chance = self.chance if method.is_random else None
        return method(self.tensors, base, chance=chance, statistics=self.statistics, **settings)

    def pick(self, models: Sequence[int]) -> Problem:
        """The problem of some of the models, in the order given."""
        kept = list(models)
        return self.map(lambda array: array if array is self.base else array[kept])

    def map(self, change: Callable[[Any], Any]) -> Problem:
        """The problem with every array changed."""
        statistics = {name: change(array) for name, array in self.statistics.items()}
        return Problem(change(self.tensors), change(self.base), change(self.chance), statistics)


def sample(method: Method, shape: tuple[int, ...] | None = None, seed: int = 0) -> Problem:
    """A small random problem that `method` accepts, float32.

    The numbers are multiples of 2**-14, so that deltas, and twice them, are exact. By default a matrix: 6 by 5, or
    square where a word among the settings says which way round matrices are.
    """
    if shape is None:
        shape = (5, 5) if any(stat.inputs_first for stat in method.statistics.values()) else (6, 5)
    low, high = method.models
    k = high or max(low, 3)
    rng = np.random.default_rng([seed, *shape])

    def draw(spread: float, *size: int) -> NDArray[np.float32]:
        return (np.rint(rng.normal(0, spread, size) * 2**14) / 2**14).astype(np.float32)

    base = draw(1, *shape)
    tensors, chance = base + draw(0.25, k, *shape), rng.random((k, *shape), dtype=np.float32)
    words = {name: setting.default for name, setting in method.settings.items()}
    sizes = {stat: stat.shape_for(shape, words) for stat in method.statistics.values()}
    found = {stat.name: _measured(stat, k, size, rng) for stat, size in sizes.items()}
    return Problem(tensors, base, chance, {name: one for name, one in found.items() if one is not None})


def _measured(stat: Stat, k: int, size: tuple[int, ...] | None, rng: np.random.Generator) -> Any:
    """A statistic as it might have been measured: squares of gradients, or inner products of enough inputs."""
    if size is None:
        return None
    if stat.shape == "weight":
        found = rng.normal(size=(k, *size)) ** (1 if stat.signed else 2)
        return found.astype(np.float32)
    inputs = rng.normal(size=(k, 4 * size[0], size[0]))
    return (np.swapaxes(inputs, 1, 2) @ inputs / max(4 * size[0], 1)).astype(np.float32)


def uneven(method: Method, k: int) -> dict[str, Any]:
    """A value for every number among the settings: no two models alike, nothing neutral.

    Numbers that do not go together are drawn towards the defaults, until the method accepts them.
    """
    found = {name: _uneven(s, k) for name, s in method.settings.items() if s.kind in (float, int)}
    for _ in range(8):
        try:
            method.bind(found, k)
        except SettingError:
            found = {name: _drawn(value, method.settings[name]) for name, value in found.items()}
        else:
            break
    return found


def _drawn(value: Any, setting: Setting) -> Any:
    """Half the way to the default."""
    if setting.kind is int or setting.default is REQUIRED:
        return value
    halves = [(one + setting.default) / 2 for one in (value if setting.per_model else [value])]
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
    kinds = {name: (True, False) if s.kind is bool else s.kind for name, s in method.settings.items()}
    words = {name: kind for name, kind in kinds.items() if isinstance(kind, tuple)}
    for combination in product(*words.values()):
        settings = uneven(method, k) | dict(zip(words, combination, strict=True))
        try:
            method.bind(settings, k)
        except SettingError:
            continue  # these words do not go together
        yield settings


def of_models(method: Method, settings: Mapping[str, Any], models: Sequence[int]) -> dict[str, Any]:
    return {n: [v[i] for i in models] if method.settings[n].per_model else v for n, v in settings.items()}
