"""Statistics as inputs of methods, measured on each model's data before the merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from array_api_compat import array_namespace

from ..errors import SettingError, suggestion
from ._passes import Array, call


@dataclass(frozen=True)
class Stat:
    """A statistic that every model brings, in float32.

    A tensor of which no model has it comes with None, if the parameter is annotated as `Array | None`: then the
    method documents the fallback in its docstring. Otherwise every tensor must have it.

    Attributes:
        name: Its name in recipes.
        shape: `weight`: a number for each entry, stacked (k, *shape). `gram`: the inner products of the inputs of a
            matrix, (k, d, d); the matrix is (outputs, inputs), a convolution (outputs, inputs * height * width).
        inputs_first: For Grams, from settings by name: whether matrices are (inputs, outputs) (default: they are not).
        signed: True if negative numbers are valid.
        when: From settings, by name, whether these settings need it (default: always); None is given otherwise.
        optional: True if tensors may lack it; read from the annotation.
    """

    name: str
    shape: Literal["weight", "gram"] = "weight"
    inputs_first: Callable[..., bool] | None = None
    signed: bool = True
    when: Callable[..., bool] | None = None
    optional: bool = False

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """True if a method with these settings uses it."""
        return self.when is None or bool(call(self.when, settings))

    def shape_for(self, shape: Sequence[int], settings: Mapping[str, Any]) -> tuple[int, ...] | None:
        """The shape of one model's statistic of a tensor; None if tensors of this shape can have none."""
        if self.shape == "weight":
            return tuple(shape)
        if len(shape) < 2:
            return None
        first = self.inputs_first is not None and bool(call(self.inputs_first, settings))
        side = shape[0] if first else math.prod(shape[1:])
        return side, side


def supplied(
    method: str,
    requested: Mapping[str, Stat],
    available: Mapping[str, Array],
    stack: Array,
    settings: Mapping[str, Any],
) -> dict[str, Array | None]:
    """The statistics as a definition takes them, checked against the models' tensors.

    Args:
        method: The method's name, for messages.
        requested: The requested statistics, by parameter.
        available: The available statistics by name, stacked over models.
        stack: The models' tensors, (k, *shape).
        settings: Bound settings.

    Raises:
        SettingError: a statistic is unknown, missing, or of another shape.
    """
    names = {stat.name for stat in requested.values()}
    for name in available:
        if name not in names:
            raise SettingError(f"method {method!r} takes no statistic {name!r}. {suggestion(name, names)}")
    return {
        key: _checked(method, stat, available.get(stat.name), stack, settings) if stat.applies(settings) else None
        for key, stat in requested.items()
    }


def _checked(method: str, stat: Stat, array: Array | None, stack: Array, settings: Mapping[str, Any]) -> Array | None:
    if array is None:
        if not stat.optional:
            raise SettingError(f"method {method!r} needs the statistic {stat.name!r} of every model.")
        return None
    shape = stat.shape_for(tuple(stack.shape[1:]), settings)
    if stat.shape == "weight" and (*array.shape, 1) == tuple(stack.shape):  # scalars travel as vectors of one entry
        return array_namespace(stack).reshape(array, stack.shape)
    if shape is None or tuple(array.shape) != (stack.shape[0], *shape):
        needed = "is not defined" if shape is None else f"must be {[stack.shape[0], *shape]}"
        raise SettingError(
            f"the statistic {stat.name!r} of method {method!r} {needed} for tensors of shape "
            f"{list(stack.shape[1:])}; got {list(array.shape)}."
        )
    return array
