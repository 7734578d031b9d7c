"""Whole merges of stored numbers: widened, merged, put onto the base and checked in one pass over memory.

A block's numbers never leave the first-level cache.  Each operation is the one that the twins do, in their order, so
the results have the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._compile import inlined, kernel, scratch
from .elect import FUNCTIONS, MAX, MEAN

_BLOCK = 1024
MOST = 16  # models that `elect` takes: their blocks lie on the stack
_EXPONENT = np.uint32(0x7F800000)


@dataclass(frozen=True)
class Stored:
    """The stored numbers of a tensor in all models, as a method merges them without their being widened before.

    Attributes:
        bits: (k, n), or (k + 1, n) with the base last, as unsigned integers, C-contiguous; bfloat16 or float32.
        start: The first entry that is merged.
        has_base: Whether the last row is the base.
    """

    bits: Any
    start: int
    has_base: bool

    @property
    def shift(self) -> Any:
        """By how many bits a number is shifted to be float32."""
        return np.uint32(32 - 8 * self.bits.dtype.itemsize)


def weighted_sum(out: Any, stored: Stored, weight: Any, scale: Any) -> bool:
    """Write scale * sum_i weight_i x_i, of tensors, or of deltas and then onto the base; whether it is finite.

    Args:
        out: (n,) float32.
        stored: What is summed.
        weight: (k,) float32.
        scale: A number.
    """
    return bool(_sum(out, stored.bits, stored.shift, stored.start, stored.has_base, weight, scale))


def elect(out: Any, stored: Stored, kept: Any, weight: Any, function: str, tie: float, scale: float) -> bool | None:
    """Trim deltas, elect signs, merge what has them and add the base; whether the result is finite.

    Args:
        out: (n,) float32.
        stored: The models, at most MOST, and the base.
        kept: The `Cut` by which deltas are trimmed, or None.
        weight: (k,) float32.
        function: `mean`, `sum` or `max`.
        tie: The sign where the sum is zero.
        scale: What the merged deltas are multiplied by.

    Returns:
        None where there are more models, no base, or cuts by rows.
    """
    if len(weight) > MOST or not stored.has_base or (kept is not None and kept.value.shape[1] != 1):
        return None
    value = np.full(len(weight), -1, np.float32) if kept is None else np.ascontiguousarray(kept.value[:, 0])
    last = np.full(len(weight), -1, np.int64) if kept is None else np.ascontiguousarray(kept.last[:, 0])
    bits, shift, start = stored.bits, stored.shift, stored.start
    return bool(_elect(out, bits, shift, start, value, last, weight, FUNCTIONS[function], tie, scale))


@inlined
def _bits(number: Any) -> Any:
    return np.float32(number).view(np.uint32)


@inlined
def _wide(bits: Any, shift: Any) -> Any:
    return np.uint32(np.uint32(bits) << shift).view(np.float32)


@kernel
def _sum(out: Any, bits: Any, shift: Any, start: int, has_base: bool, weight: Any, scale: Any) -> Any:
    """Write base + scale * sum_i weight_i (theta_i - base), or scale * sum_i weight_i theta_i without a base.

    Args:
        out: (n,) float32.
        bits: Stored numbers of k models, and of the base.
        shift: See `Stored`.
        start: Entry of `bits` that is the first of `out`.
        has_base: Whether there is a base.
        weight: (k,) float32.
        scale: A number.

    Returns:
        Whether all numbers are finite.
    """
    factor, top, last = np.float32(scale), np.uint32(0), bits.shape[0] - 1
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        first, stop = start + begin, start + begin + part.size
        base = bits[last, first:stop]
        for model in range(weight.size):
            row, w = bits[model, first:stop], weight[model]
            if has_base:
                _add_deltas(part, row, base, shift, w, model == 0)
            else:
                _add_tensors(part, row, shift, w, model == 0)
        for i in range(part.size):
            part[i] *= factor
        if has_base:
            for i in range(part.size):
                part[i] += _wide(base[i], shift)
        for i in range(part.size):
            top = max(top, np.uint32(_bits(part[i]) & _EXPONENT))
    return top < _EXPONENT


@kernel
def _add_deltas(part: Any, row: Any, base: Any, shift: Any, w: Any, begins: bool) -> None:
    if begins:
        for i in range(part.size):
            part[i] = w * (_wide(row[i], shift) - _wide(base[i], shift))
    else:
        for i in range(part.size):
            part[i] += w * (_wide(row[i], shift) - _wide(base[i], shift))


@kernel
def _add_tensors(part: Any, row: Any, shift: Any, w: Any, begins: bool) -> None:
    if begins:
        for i in range(part.size):
            part[i] = w * _wide(row[i], shift)
    else:
        for i in range(part.size):
            part[i] += w * _wide(row[i], shift)


@kernel
def _elect(
    out: Any,
    bits: Any,
    shift: Any,
    start: int,
    value: Any,
    last: Any,
    weight: Any,
    function: int,
    tie: Any,
    scale: Any,
) -> Any:
    """Trim the deltas by cuts over whole tensors, elect signs, merge what has them, and add the base.

    Args:
        out: (n,) float32, written.
        bits: Stored numbers of k models, at most MOST, and of the base.
        shift: See `Stored`.
        start: Entry of `bits` that is the first of `out`.
        value: (k,) float32, the smallest magnitude that each model keeps.
        last: (k,) int64, the last entry of that magnitude that it keeps, as an index in the tensor.
        weight: (k,) float32.
        function: MEAN, SUM or MAX.
        tie: The sign where the sum is zero.
        scale: What the result is multiplied by.

    Returns:
        Whether all numbers are finite.
    """
    deltas = scratch(16384, np.float32)  # MOST * _BLOCK, as a literal
    top, k = np.uint32(0), weight.size
    for begin in range(0, out.size, _BLOCK):
        part = out[begin : begin + _BLOCK]
        first, stop = start + begin, start + begin + part.size
        base = bits[k, first:stop]
        for i in range(part.size):
            part[i] = np.float32(0)
        for model in range(k):
            row = deltas[model * _BLOCK : model * _BLOCK + part.size]
            split = min(max(last[model] + 1 - first, 0), part.size)
            models = bits[model, first:stop]
            _trimmed(row[:split], part[:split], models[:split], base[:split], shift, value[model], True, weight[model])
            _trimmed(row[split:], part[split:], models[split:], base[split:], shift, value[model], False, weight[model])
        _agreed(part, deltas, weight, base, shift, function, np.float32(tie), np.float32(scale))
        for i in range(part.size):
            top = max(top, np.uint32(_bits(part[i]) & _EXPONENT))
    return top < _EXPONENT


@kernel
def _trimmed(row: Any, vote: Any, bits: Any, base: Any, shift: Any, smallest: Any, equals: bool, weight: Any) -> None:
    if equals:
        for i in range(row.size):
            delta = _wide(bits[i], shift) - _wide(base[i], shift)
            kept = delta if abs(delta) >= smallest else np.float32(0)
            row[i] = kept
            vote[i] += weight * kept
    else:
        for i in range(row.size):
            delta = _wide(bits[i], shift) - _wide(base[i], shift)
            kept = delta if abs(delta) > smallest else np.float32(0)
            row[i] = kept
            vote[i] += weight * kept


@kernel
def _agreed(part: Any, deltas: Any, weight: Any, base: Any, shift: Any, function: int, tie: Any, factor: Any) -> None:
    """As `elect` has it, from the votes in `part`; then onto the base."""
    sign, share = scratch(_BLOCK, np.float32), scratch(_BLOCK, np.float32)
    zero, one = np.float32(0), np.float32(1)
    for i in range(part.size):
        sign[i] = one if part[i] > zero else (-one if part[i] < zero else tie)
        part[i] = zero
        share[i] = zero
    for model in range(weight.size):
        row, w = deltas[model * _BLOCK : model * _BLOCK + part.size], weight[model]
        for i in range(part.size):
            entry = w * row[i] * sign[i]
            agrees = entry > zero
            part[i] = max(part[i], entry) if function == MAX else part[i] + (entry if agrees else zero)
            share[i] += w if agrees else zero
    for i in range(part.size):
        divisor = share[i] if function == MEAN and share[i] != zero else one
        part[i] = part[i] * sign[i] / divisor * factor + _wide(base[i], shift)


@kernel
def round_to_bfloat16(numbers: Any) -> Any:
    """Round float32 to what bfloat16 holds, in place, as `encode` does; whether all are finite there."""
    top = np.uint32(0)
    for i in range(numbers.size):
        bits = _bits(numbers[i])
        odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd)
        top = max(top, np.uint32(rounded & _EXPONENT))
        numbers[i] = np.uint32(rounded & np.uint32(0xFFFF0000)).view(np.float32)
    return top < _EXPONENT
