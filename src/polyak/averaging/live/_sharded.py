"""Tensors that are distributed over processes (DTensor): local shards, whole tensors, and agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """True for a DTensor, of which this process holds a part."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process has, without gradient; the same memory."""
    part: Any = tensor.detach()
    return part.to_local() if is_sharded(tensor) else part


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all processes, which must all call this; other tensors as they are."""
    sharded: Any = tensor.detach()
    return sharded.full_tensor() if is_sharded(tensor) else sharded


def agreed(index: int | None) -> int | None:
    """The smallest index of all processes, None counting as infinity, so that all take the same decision."""
    import torch
    import torch.distributed as dist

    device = "cpu" if dist.get_backend() == "gloo" else torch.accelerator.current_accelerator()
    flag = torch.tensor(2**62 if index is None else index, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    smallest = int(flag.item())
    return None if smallest == 2**62 else smallest


def rank() -> tuple[int, int]:
    """The number of this process and of all processes; (0, 1) outside of distributed training."""
    import torch.distributed as dist

    is_distributed = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if is_distributed else (0, 1)
