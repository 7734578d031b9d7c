"""Folding weights into copies: step by step, or several steps together from snapshots of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from . import _fused
from ._arithmetic import Tensors, fold, not_finite
from ._sharded import agreed

if TYPE_CHECKING:
    from torch import Tensor

Move: TypeAlias = "tuple[Tensors, float]"
Moves: TypeAlias = Mapping[tuple[str, int], Move]
"""By the average and the number of its copy: the copy, and the amount by which it moves."""


class _Snapshot(NamedTuple):
    weights: list[Tensor]
    moves: Moves


class Folding:
    """Moves copies towards weights; of several steps together, the copies are read and written once.

    The result does not depend on how many steps are folded together, bit for bit.

    Args of the constructor:
        together: Number of updates that are folded at once; all but the last are kept as snapshots until then.
        checks: Look for NaN and infinity in weights before they reach a copy.
        is_sharded: All processes take the same decision on weights that are not finite.
    """

    def __init__(self, together: int, *, checks: bool, is_sharded: bool) -> None:
        self._together, self._checks, self._is_sharded = together, checks, is_sharded
        self._pending, self._free = list[_Snapshot](), list["list[Tensor]"]()

    def add(self, weights: list[Tensor], moves: Moves) -> int | None:
        """Fold weights into copies, now or with those of the next steps.

        Returns:
            The index of the first tensor with NaN or infinity, in which case the copies are as they were, to within
            rounding; None if the weights count.
        """
        columns = [weights, *(copies for copies, _ in moves.values())]
        fused, checks = _fused.fits(columns), self._checks
        if checks and (self._is_sharded or not fused):
            bad = not_finite(weights)
            bad = agreed(bad) if self._is_sharded else bad
            if bad is not None:
                return bad
            checks = False
        if not fused:
            self.settle()
            fold(weights, list(moves.values()))
            return None
        if len(self._pending) + 1 < self._together:
            return self._postpone(weights, moves, checks=checks)
        bad = _fold_together([*self._pending, _Snapshot(weights, moves)], checks=checks)
        if bad is None:
            self._release()
        return bad

    def settle(self) -> None:
        """Fold what has been postponed."""
        if self._pending:
            _fold_together(self._pending, checks=False)
            self._release()

    def forget(self) -> None:
        """Drop what has been postponed: the copies are about to be replaced."""
        self._release()

    def _postpone(self, weights: list[Tensor], moves: Moves, *, checks: bool) -> int | None:
        import torch

        copy = self._free.pop() if self._free else [torch.empty_like(weight) for weight in weights]
        bad = _fused.snapshot(weights, copy, checks=checks)
        if bad is None:
            self._pending.append(_Snapshot(copy, moves))
        else:
            self._free.append(copy)
        return bad

    def _release(self) -> None:
        self._free += [each.weights for each in self._pending]
        self._pending = []


def _fold_together(steps: Sequence[_Snapshot], *, checks: bool) -> int | None:
    columns = {key: copies for each in steps for key, (copies, _) in each.moves.items()}
    amounts = np.zeros((len(steps), len(columns)), np.float32)
    for row, each in zip(amounts, steps, strict=True):
        row[:] = [each.moves[key][1] if key in each.moves else 0.0 for key in columns]
    copies = list(columns.values())
    return _fused.fold_all([each.weights for each in steps], copies, amounts, checks=checks)
