"""Moving averages of weights in one pass over memory: all copies of an entry move while its weights are in cache.

Tensors are given by their addresses, because an update touches hundreds of them and each would cost a call. Copies take
turns every few cache lines: reading from many places at a time uses more of the memory's bandwidth than one after the
other does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import I64, F32Rows, I64Rows, at_address, inlined, kernel, settle, stream

_TURN = 64  # entries of a copy before it is the turn of the next
_CHECKED = 128  # entries that are checked before any of them moves: few, so that weights and copies are read in turn
_BLOCK = 1024  # entries of a block that is not checked
_STREAMED = 8192  # entries that are checked before they are copied
_EXPONENT = np.uint32(0x7F800000)
_WORD = 4  # bytes


@kernel
def fold(table: I64Rows, sizes: I64, amounts: F32Rows, start: int, stop: int, checks: bool) -> int:
    """Move copies towards the weights of one step or of several, copy <- copy + amount (weights - copy), in order.

    It stops before a block of entries where the last weights hold NaN or infinity, if it checks them.

    Args:
        table: (tensors, steps + copies) int64: addresses of the weights, then of the copies, all float32.
        sizes: (tensors,) entries.
        amounts: (steps, copies); 1 overwrites a copy, 0 leaves it.
        start: Number of the first entry to move, counted over all tensors.
        stop: Number after the last.
        checks: True to look for NaN and infinity.

    Returns:
        The number of the entry before which it stopped; `stop` if it went to the end.
    """
    steps, copies = amounts.shape
    block = _CHECKED if checks else _BLOCK
    turn = _TURN if copies > 1 else block
    before = 0
    for tensor in range(sizes.size):
        addresses = table[tensor]
        first, beyond = max(start - before, 0), min(stop - before, sizes[tensor])
        for begin in range(first, beyond, block):
            end = min(begin + block, beyond)
            if checks and not _is_finite(at_address(addresses[steps - 1] + _WORD * begin, end - begin)):
                return before + begin
            for at in range(begin, end, turn):
                for copy in range(copies):
                    _move_by_all(addresses, amounts, copy, _WORD * at, min(turn, end - at))
        before += sizes[tensor]
    return stop


@kernel
def take(table: I64Rows, sizes: I64, start: int, stop: int, checks: bool) -> int:
    """Copy weights past the caches, up to the first block that holds NaN or infinity.

    Args:
        table: (tensors, 2) int64: addresses of the weights and of their copy.
        sizes: (tensors,) entries.
        start: Number of the first entry to copy, counted over all tensors.
        stop: Number after the last.
        checks: True to look for NaN and infinity.

    Returns:
        As for `fold`.
    """
    before = 0
    for tensor in range(sizes.size):
        copy = at_address(table[tensor, 1], sizes[tensor])
        first, beyond = max(start - before, 0), min(stop - before, sizes[tensor])
        for begin in range(first, beyond, _STREAMED):
            block = at_address(table[tensor, 0] + _WORD * begin, min(_STREAMED, beyond - begin))
            if checks and not _is_finite(block):
                return before + begin
            stream(block, copy, begin)
        before += sizes[tensor]
    settle()
    return stop


@inlined
def _move_by_all(addresses: Any, amounts: Any, copy: int, offset: int, n: int) -> None:
    steps, whole, none = amounts.shape[0], np.float32(1), np.float32(0)
    target = at_address(addresses[steps + copy] + offset, n)
    step = 0
    while step < steps:
        amount, weights = amounts[step, copy], at_address(addresses[step] + offset, n)
        following = amounts[step + 1, copy] if step + 1 < steps else whole
        if amount == whole:
            for i in range(n):
                target[i] = weights[i]
        elif amount != none and following < whole and following > none:
            later = at_address(addresses[step + 1] + offset, n)
            for i in range(n):  # two at a time halve the traffic of the copy
                moved = target[i] + amount * (weights[i] - target[i])
                target[i] = moved + following * (later[i] - moved)
            step += 1
        elif amount != none:
            for i in range(n):
                target[i] += amount * (weights[i] - target[i])
        step += 1


@inlined
def _is_finite(numbers: Any) -> Any:
    top = np.uint32(0)
    for i in range(numbers.size):
        top = max(top, np.uint32(np.float32(numbers[i]).view(np.uint32) & _EXPONENT))
    return top < _EXPONENT
