"""Run a method's definition on arrays that are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from array_api_compat import array_namespace

from ..errors import DeclarationError, SettingError
from ._definition import Definition
from ._passes import Array, answer, call
from ._signature import FirstPass, Role
from ._stat import Stat, supplied

NO_STATISTICS: Mapping[str, Array] = MappingProxyType({})


def apply(
    method: Definition,
    tensors: Array,
    base: Array | None,
    name: str,
    chance: Array | None,
    seed: int,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Array],
) -> Array:
    """See `Method.__call__`."""
    k, shape = tensors.shape[0], tuple(tensors.shape[1:])
    method.check_count(k)
    if method.needs_base and base is None:
        raise SettingError(f"method {method.name!r} needs a base model.")
    method, bound = method.for_tensor(name, shape, method.bind(settings, k), k)
    xp = array_namespace(tensors)
    if 0 in shape:
        return xp.empty_like(tensors[0])
    # No method meets a 0-d tensor: scalars travel as vectors of one entry.
    stack = tensors if shape else xp.reshape(tensors, (k, 1))
    ground = xp.reshape(base, stack.shape[1:]) if base is not None and method.uses_base else None
    if method.is_random:
        chance = _draw(stack, seed) if chance is None else xp.reshape(chance, stack.shape)
    result = evaluate_definition(method, stack, ground, name, chance, bound, statistics)
    if tuple(result.shape) != tuple(stack.shape[1:]):
        raise DeclarationError(f"method {method.name!r} turned {shape} into {tuple(result.shape)}.")
    return xp.reshape(result, shape)


def evaluate_definition(
    method: Definition,
    stack: Array,
    base: Array | None,
    name: str,
    chance: Array | None,
    bound: Mapping[str, Any],
    statistics: Mapping[str, Array] = NO_STATISTICS,
    answers: Mapping[str, Any] = NO_STATISTICS,
) -> Array:
    """Answer the method's first passes from the stack itself, call it, and add the base where it returns a delta."""
    arrays: dict[Role, Array] = {Role.TENSORS: stack, Role.BASE: base, Role.NAME: name, Role.UNIFORM: chance}
    if base is not None or method.optional_base:
        arrays[Role.DELTAS] = stack if base is None else stack - base
    return evaluate_on_arrays(method, stack, arrays, bound, statistics, answers)


def evaluate_on_arrays(
    method: Definition,
    stack: Array,
    arrays: Mapping[Role, Array],
    bound: Mapping[str, Any],
    statistics: Mapping[str, Array] = NO_STATISTICS,
    answers: Mapping[str, Any] = NO_STATISTICS,
) -> Array:
    """The same, where the inputs are there already.

    Args:
        method: The method.
        stack: Template of the result: tensors or task vectors, (k, *shape).
        arrays: The method's inputs, and those of its first passes.
        bound: All settings.
        statistics: The models' statistics, by name, stacked.
        answers: Answers of first passes that are already known.
    """
    supply = settings_as_arrays(method, bound, stack)
    named = {"tensors": Role.TENSORS, "deltas": Role.DELTAS, "base": Role.BASE}
    supply |= {parameter: arrays[role] for parameter, role in named.items() if role in arrays}
    supply |= supplied(method.name, method.statistics, statistics, stack, bound)
    for parameter, kind in method.inputs.items():
        if parameter in answers:
            supply[parameter] = answers[parameter]
        elif isinstance(kind, FirstPass):
            request = call(kind.ask, bound)
            supply[parameter] = None if request is None else answer(request, supply)
        elif not isinstance(kind, Stat):
            supply[parameter] = arrays[kind]
    return as_result(method, call(method.fn, supply), arrays.get(Role.BASE), stack)


def as_result(method: Definition, result: Array, base: Array | None, stack: Array) -> Array:
    """Bring a definition's result to the dtype of its inputs, and onto the base where it is a delta from one."""
    xp = array_namespace(stack)
    result = xp.astype(result, stack.dtype, copy=False)
    return result + base if method.returns is Role.DELTA and base is not None else xp.asarray(result, copy=True)


def settings_as_arrays(method: Definition, bound: Mapping[str, Any], stack: Array) -> dict[str, Any]:
    """Bound settings, those with a number for each model shaped (k, 1, ..., 1) to multiply the stack."""
    xp = array_namespace(stack)
    column = (stack.shape[0], *[1] * (stack.ndim - 1))
    device = {"device": stack.device} if hasattr(stack, "device") else {}
    return {
        name: xp.reshape(xp.asarray(value, dtype=stack.dtype, **device), column)
        if method.settings[name].per_model
        else value
        for name, value in bound.items()
    }


def _draw(stack: Array, seed: int) -> Array:
    import numpy as np

    xp = array_namespace(stack)
    drawn = np.random.Generator(np.random.Philox(seed)).random(tuple(stack.shape), dtype=np.float32)
    return xp.astype(xp.asarray(drawn), stack.dtype)
