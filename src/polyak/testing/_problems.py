"""Random problems for any method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..methods import Method, Stat


@dataclass(frozen=True)
class Problem:
    """The inputs of one merge.

    Attributes:
        tensors: The models' tensors, (k, *shape).
        base: The base's, (*shape).
        chance: Random numbers in [0, 1), (k, *shape).
        statistics: Statistics of the models by name, stacked.
        keys: Keys of the random numbers, (k, 2): see `polyak.kernels.philox.Stream`.
    """

    tensors: Any
    base: Any
    chance: Any
    statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keys: Any = None

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
        picked = self.map(lambda array: array if array is self.base else array[kept])
        return replace(picked, keys=None if self.keys is None else self.keys[kept])

    def map(self, change: Callable[[Any], Any]) -> Problem:
        """The problem with every array changed."""
        statistics = {name: change(array) for name, array in self.statistics.items()}
        return Problem(change(self.tensors), change(self.base), change(self.chance), statistics, self.keys)


def sample(
    method: Method, shape: tuple[int, ...] | None = None, seed: int = 0, *, models: int | None = None
) -> Problem:
    """A small random problem that `method` accepts, float32.

    The numbers are multiples of 2**-14, so that deltas, and twice them, are exact.

    Args:
        method: The method.
        shape: Shape of the tensor (default: 6 by 5; 5 by 5 if a setting transposes matrices).
        seed: Seed of the random numbers.
        models: Number of models (default: three, or as many as the method takes).
    """
    if shape is None:
        shape = (5, 5) if any(stat.inputs_first for stat in method.statistics.values()) else (6, 5)
    low, high = method.models
    k = models or high or max(low, 3)
    rng = np.random.default_rng([seed, *shape])

    def draw(spread: float, *size: int) -> NDArray[np.float32]:
        return np.asarray(np.rint(rng.normal(0, spread, size) * 2**14) / 2**14, np.float32)

    base = draw(1, *shape)
    tensors = np.asarray(base + draw(0.25, k, *shape), np.float32)
    keys, chance = _random_numbers(method, seed, k, shape)
    return Problem(tensors, base, chance, _statistics(method, k, shape, rng), keys)


def _statistics(method: Method, k: int, shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """The statistics that are defined for tensors of this shape."""
    words = {name: setting.default for name, setting in method.settings.items()}
    sizes = {stat: stat.shape_for(shape, words) for stat in method.statistics.values()}
    measured = {stat.name: _measured(stat, k, size, rng) for stat, size in sizes.items()}
    return {name: statistic for name, statistic in measured.items() if statistic is not None}


def _random_numbers(method: Method, seed: int, k: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Keys and numbers; those of the engine for a random method, since its kernel draws them itself."""
    if not method.is_random:
        return None, np.random.default_rng(seed).random((k, *shape), dtype=np.float32)
    from ..kernels.philox import stream

    drawn = stream(seed, tuple(f"model {i}" for i in range(k)), "tensor")
    return drawn.keys, drawn.numbers(math.prod(shape)).reshape(k, *shape)


def _measured(stat: Stat, k: int, size: tuple[int, ...] | None, rng: np.random.Generator) -> Any:
    """A plausible statistic: squares of gradients, or a full-rank Gram."""
    if size is None:
        return None
    if stat.shape == "weight":
        return np.asarray(rng.normal(size=(k, *size)) ** (1 if stat.signed else 2), np.float32)
    inputs = rng.normal(size=(k, 4 * size[0], size[0]))
    return (np.swapaxes(inputs, 1, 2) @ inputs / max(4 * size[0], 1)).astype(np.float32)
