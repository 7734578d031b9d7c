"""Merge stored rows in one sweep: every entry is decoded, merged and rounded while it is in a register.

One kernel per number of models: it pays off where the same models are merged again and again. Results have the bits of
the kernel of the method's loop, since sums have the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from ..checkpoint import DType
from ..native import F32, Kernel, Key, array_kind, declared_keys, filled, inlined, scratch, settle, stream
from .sign_election import MAX, MEAN, trim_and_elect
from .weighted_sums import combine

MOST = 8  # models that fit the registers
_BLOCK = 1024  # entries that stay in the first-level cache until they are streamed out
_EXPONENT = np.uint32(0x7F800000)

Sweep = Callable[[Any, Any, int], bool]


def sweep(
    step: Any, args: tuple[Any, ...], stored: DType, out: DType, models: int, *, relative: bool, adds: bool
) -> Sweep | None:
    """Return a function that merges finite stored rows into float32 rounded to `out`; None if another way must.

    Its arguments are the stored rows (rows, bytes), C-contiguous, the base last if there is one; the entries to write,
    and the index of the first in the rows. It returns False if a result is not finite or overflows `out`.

    Args:
        step: The kernel of a method's loop.
        args: Its arguments after `start`.
        stored: Dtype of the rows.
        out: Dtype that a file would have.
        models: Number of models.
        relative: True to subtract the base from them.
        adds: True to add it to the result.
    """
    if stored is not out or stored.name not in _DTYPES or not 0 < models <= MOST:
        return None
    if step is combine:
        run = _combining(stored.name, models, relative, adds)
    elif step is trim_and_elect and relative and adds and (elected := _elected(args)) is not None:
        run, args = _electing(stored.name, models), elected
    else:
        return None
    return lambda rows, to, offset: bool(run(rows.view(_DTYPES[stored.name][0]), to, offset, *args))


def _elected(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments of `_elect` from those of `trim_and_elect`; None where equals are split or entries rescaled.

    A threshold below zero keeps everything, and an infinite one nothing, whatever the index.
    """
    trims, value, last, _, rescales, _, weight, function, tie, scale = args
    if rescales or value.shape[1] != 1:
        return None
    boundary = value[:, 0] if trims else np.zeros(len(weight), np.float32)
    if trims and not ((last[:, 0] >= np.iinfo(np.int32).max) | (boundary < 0) | np.isinf(boundary)).all():
        return None
    each = np.ascontiguousarray(np.broadcast_to(boundary, len(weight)))
    return each, weight, function == MEAN, function == MAX, float(tie), float(scale)


@cache
def _combining(dtype: str, models: int, relative: bool, adds: bool) -> Any:
    _, widened, rounded = _DTYPES[dtype]
    named = {"_MODELS": models, "_RELATIVE": relative, "_ADDS": adds}
    return filled(_combine, _widened=widened, _rounded=rounded, **named)


@cache
def _electing(dtype: str, models: int) -> Any:
    _, widened, rounded = _DTYPES[dtype]
    return filled(_elect, _widened=widened, _rounded=rounded, _MODELS=models)


def sweep_variants() -> Iterator[tuple[Kernel, Key]]:
    """The kernels that `sweep` fills, one per dtype, number of models and use of the base."""
    for dtype, models in product(_DTYPES, range(1, MOST + 1)):
        stored = array_kind(_DTYPES[dtype][0], 2)
        for relative, adds in product((False, True), repeat=2):
            combining = _combining(dtype, models, relative, adds)
            yield from ((combining, key) for key in declared_keys(_combine, stored=stored))
        electing = _electing(dtype, models)
        yield from ((electing, key) for key in declared_keys(_elect, stored=stored))


@inlined
def _from_f32(number: Any) -> Any:
    return np.float32(number)


@inlined
def _from_bf16(number: Any) -> Any:
    return np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)


@inlined
def _as_f32(number: Any) -> Any:
    return np.float32(number).view(np.uint32)


@inlined
def _as_bf16(number: Any) -> Any:
    bits = np.float32(number).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd) & np.uint32(0xFFFF0000))
    # A NaN can round out of its exponent.
    return bits if np.uint32(bits & _EXPONENT) == _EXPONENT else rounded


# Per dtype: NumPy type of stored entries, function that widens one, function that rounds one (float32 bits).
_DTYPES: dict[str, tuple[Any, Any, Any]] = {
    "F32": (np.float32, _from_f32, _as_f32),
    "BF16": (np.uint16, _from_bf16, _as_bf16),
}

# Names in the templates below, until they are filled.
_MODELS, _RELATIVE, _ADDS = 1, False, False


def _widened(number: Any) -> Any: ...
def _rounded(number: Any) -> Any: ...


def _combine(stored: Any, out: F32, offset: int, weight: F32, scale: float) -> Any:
    """`combine`, with the number of models known to the compiler."""
    factor, top, block = np.float32(scale), np.uint32(0), scratch(_BLOCK, np.float32)
    for begin in range(0, out.size, _BLOCK):
        part = block[: min(_BLOCK, out.size - begin)]
        first = np.uint64(offset + begin)
        for i in range(part.size):
            at = first + np.uint64(i)  # unsigned: otherwise the compiler cannot prove it non-negative
            base = _widened(stored[_MODELS, at]) if _RELATIVE or _ADDS else np.float32(0)
            total = np.float32(0)
            for model in range(_MODELS):
                number = _widened(stored[model, at])
                weighted = weight[model] * (number - base if _RELATIVE else number)
                total = weighted if model == 0 else total + weighted
            total *= factor
            bits = np.uint32(_rounded(total + base if _ADDS else total))
            top = max(top, np.uint32(bits & _EXPONENT))
            part[i] = np.uint32(bits).view(np.float32)
        stream(part, out, begin)
    settle()
    return top < _EXPONENT


def _elect(
    stored: Any,
    out: F32,
    offset: int,
    boundary: F32,
    weight: F32,
    is_mean: bool,
    is_max: bool,
    tie: float,
    scale: float,
) -> Any:
    """`trim_and_elect` by one threshold per model.

    Deltas are computed twice, for the vote and for the sum: cheaper than keeping them.
    """
    zero, one, tie_sign, factor = np.float32(0), np.float32(1), np.float32(tie), np.float32(scale)
    top, block = np.uint32(0), scratch(_BLOCK, np.float32)
    for begin in range(0, out.size, _BLOCK):
        part = block[: min(_BLOCK, out.size - begin)]
        first = np.uint64(offset + begin)
        for i in range(part.size):
            at = first + np.uint64(i)  # unsigned: otherwise the compiler cannot prove it non-negative
            base = _widened(stored[_MODELS, at])
            vote = zero
            for model in range(_MODELS):
                delta = _widened(stored[model, at]) - base
                vote += weight[model] * (delta if abs(delta) >= boundary[model] else zero)
            sign = one if vote > zero else (-one if vote < zero else tie_sign)
            total, share = zero, zero
            for model in range(_MODELS):
                delta = _widened(stored[model, at]) - base
                entry = weight[model] * (delta if abs(delta) >= boundary[model] else zero) * sign
                agrees = entry > zero
                total = max(total, entry) if is_max else total + (entry if agrees else zero)
                share += weight[model] if agrees else zero
            divisor = share if is_mean and share != zero else one
            bits = np.uint32(_rounded(total * sign / divisor * factor + base))
            top = max(top, np.uint32(bits & _EXPONENT))
            part[i] = np.uint32(bits).view(np.float32)
        stream(part, out, begin)
    settle()
    return top < _EXPONENT
