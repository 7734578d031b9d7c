"""Pooling of the hidden states of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """One vector per example, (n, hidden), from (n, positions, hidden).

    Args:
        hidden: Last hidden states.
        mask: 1 at positions that are not padding, (n, positions).
        how: `first`, `last`, or `mean` over the positions that are not padding.
    """
    import torch

    if how == "first":
        return hidden[:, 0]
    if how == "last":
        last = torch.arange(hidden.shape[1], device=hidden.device).mul(mask).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
