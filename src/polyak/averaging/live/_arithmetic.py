"""Arithmetic on lists of tensors: moving copies towards weights, combining copies, and looking for NaN."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Tensors: TypeAlias = "Sequence[Tensor]"


def no_grad() -> AbstractContextManager[None]:
    """`torch.no_grad()`, without importing torch before it is needed."""
    import torch

    return torch.no_grad()


def fold(weights: Tensors, moves: Sequence[tuple[Tensors, float]]) -> None:
    """Move copies towards the weights, copy <- copy + amount (weights - copy), in place.

    Weights are converted once for all copies of a dtype and device. On CPUs the copies take turns tensor by tensor, so
    that small tensors are read from the cache; elsewhere each copy is one call of a fused kernel.

    Args:
        weights: The weights.
        moves: Copies, each with its amount.
    """
    if len(moves) > 1 and weights[0].device.type == "cpu":
        for i, weight in enumerate(weights):
            _fold([weight], [([copies[i]], amount) for copies, amount in moves])
    else:
        _fold(weights, moves)


def _fold(weights: Tensors, moves: Sequence[tuple[Tensors, float]]) -> None:
    import torch

    converted = dict[tuple[torch.device, torch.dtype], Tensors]()
    for copies, amount in moves:
        kind = copies[0].device, copies[0].dtype
        if amount == 1:
            torch._foreach_copy_(list(copies), list(weights))  # pyright: ignore[reportPrivateImportUsage]
            continue
        if kind not in converted:
            converted[kind] = [weight.to(*kind) for weight in weights]
        torch._foreach_lerp_(list(copies), list(converted[kind]), amount)  # pyright: ignore[reportPrivateImportUsage]


def combined(terms: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The linear combination of tensors, in float64 where the device has it.

    A single tensor with coefficient 1 is returned as it is.
    """
    import torch

    if len(terms) == 1 and terms[0][1] == 1:
        return terms[0][0]
    device = terms[0][0].device
    wide = torch.float32 if device.type == "mps" else torch.float64
    total = torch.zeros_like(terms[0][0], dtype=wide)
    for tensor, coefficient in terms:
        total.add_(tensor.to(device, wide), alpha=coefficient)
    return total


def not_finite(tensors: Tensors) -> int | None:
    """Index of the first tensor that holds NaN or infinity; None if all are finite.

    A sum is finite only if all its terms are; the reverse fails where the sum itself overflows, so tensors with such a
    sum are looked at entry by entry.
    """
    import torch

    sums = [tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32) for tensor in tensors]
    by_device = dict[torch.device, list[int]]()
    for i, each in enumerate(sums):
        by_device.setdefault(each.device, []).append(i)
    suspects = list[int]()
    for indices in by_device.values():
        finite = torch.stack([sums[i].to(torch.float32) for i in indices]).isfinite()
        suspects += [i for i, is_finite in zip(indices, finite.tolist(), strict=True) if not is_finite]
    return next((i for i in sorted(suspects) if not bool(tensors[i].isfinite().all())), None)
