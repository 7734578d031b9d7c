"""Calls of the compiled forms of a method; other modules of the checks do not depend on how they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..methods import Method, Order, Role, Sum, Top, call, in_rows

Arguments = Mapping[str, Any]


def by_definition(method: Method, arguments: Arguments) -> Any:
    """The merge by the definition; the delta where the method returns one."""
    return call(method.fn, arguments)


def has_kernel(method: Method) -> bool:
    return method.kernel_form is not None


def by_kernel(method: Method, tile: Arguments, answers: Arguments, start: int, entries: int) -> Any:
    """The merge of some entries of a tensor, (entries,) float32; NaN where the kernel writes nothing.

    Args:
        method: A method with a kernel.
        tile: Its arguments for these entries, in the forms of kernels.
        answers: The answers of its first passes for the whole tensor.
        start: Index in the tensor of the first entry.
        entries: Number of entries.
    """
    out = np.full(entries, np.nan, np.float32)
    assert method.kernel_form is not None
    if not method.is_fusable:
        call(method.kernel_form, {**tile, "out": out})
        return out
    kernel_call = call(method.kernel_form, {**tile, **answers, **_from_the_first_entry(method, tile)})
    stack = next(tile[name] for name, role in method.inputs.items() if isinstance(role, Role))
    kernel_call.kernel(out, stack, start, *kernel_call.args)
    return out


def sums_by_kernel(method: Method, request: Sum, tile: Arguments, answers: Arguments, start: int, row: int) -> Any:
    """The sums of a first pass over some entries, (m,), by their compiled form; None if they have none.

    For sums over rows, the entries must be whole rows of length `row`, and the sums are (m, rows).
    """
    if request.kernel is None:
        return None
    if not request.is_one_call:
        return np.asarray(call(request.kernel, {**tile, **in_rows(tile, row)} if request.scope == "row" else tile))
    from ..kernels.sums import LANES

    deltas = np.asarray(tile["deltas"])
    arguments = {**tile, **answers, **_from_the_first_entry(method, tile), "models": len(deltas)}
    kernel_call = call(request.kernel, arguments)
    lanes = np.zeros((kernel_call.terms, LANES))
    kernel_call.kernel(lanes, deltas.reshape(len(deltas), -1), start, *kernel_call.args)
    return lanes.sum(axis=1)


def ranked_by_kernel(request: Top | Order, tile: Arguments) -> Any:
    """The numbers that a first pass ranks, (k, n), by their compiled form; None if they have none."""
    return None if request.kernel is None else call(request.kernel, tile)


def has_packed_masks(method: Method) -> bool:
    return method.mask_kernel is not None


def masks_by_kernel(method: Method, tile: Arguments, models: int, entries: int) -> tuple[Any, Any]:
    """The bits of each model's mask, (models, bytes) with the lowest bit first, and the scales (models,)."""
    bits = np.full((models, -(-entries // 8)), 255, np.uint8)
    assert method.mask_kernel is not None
    return bits, call(method.mask_kernel, {**tile, "packed": bits})


def _from_the_first_entry(method: Method, tile: Arguments) -> dict[str, Any]:
    """Random numbers as kernel calls take them: those of the whole tensor."""
    return {name: replace(tile[name], start=0) for name, role in method.inputs.items() if role is Role.UNIFORM}
