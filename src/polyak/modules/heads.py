"""New heads for checkpoints that lack one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..checkpoint import Checkpoint
from ..errors import TaskError
from ..reading import search
from .live import entries, listed
from .recognition import Build

if TYPE_CHECKING:
    from torch import Tensor, nn


def with_new_head(
    build: Build, checkpoint: Checkpoint, heads: str, *, seed: int
) -> tuple[nn.Module, dict[str, Tensor], frozenset[str]]:
    """A module with the body of a checkpoint and a new head, as the module's library initialises it.

    Args:
        build: Builds the module from a state dict, which may lack the head.
        checkpoint: The body; a head that it has is not used.
        heads: Regular expression for the names of the head's tensors.
        seed: Seed of the head.

    Returns:
        The module; its tensors by the names of a checkpoint; and the names of those of the head.

    Raises:
        TaskError: no tensor of the module is one of the head, or another is in neither.
    """
    import torch

    state = _without(checkpoint, heads)
    body = {_contents(tensor) for tensor in state.values()}
    state |= {alias: state[name] for alias, name in checkpoint.ties.items() if name in state}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(state)
    tensors = {_tensor_name(module, name): entry.detach() for name, entry in entries(module).items()}
    head = frozenset(name for name in tensors if search(heads, name))
    if not head:
        raise TaskError(
            f"no tensor of the model matches the heads {heads!r}. The outermost parts of its names are "
            f"{', '.join(sorted(_outermost(tensors)))}: name the head's."
        )
    if lacking := [n for n, t in tensors.items() if n not in head and t.numel() and _contents(t) not in body]:
        raise TaskError(
            f"{checkpoint.label} lacks {len(lacking)} tensors of the module that are not among the heads {heads!r}: "
            f"{listed(lacking)}. Extend the pattern if they belong to the head."
        )
    return module, tensors, head


def _without(checkpoint: Checkpoint, heads: str) -> dict[str, Tensor]:
    import torch

    kept = [name for name in checkpoint.specs if not search(heads, name)]
    return {name: torch.from_numpy(checkpoint.read(name).copy()) for name in kept}


def _tensor_name(module: nn.Module, name: str) -> str:
    """The name in a checkpoint of an entry of the module."""
    from .pooled import Pooled

    return module.tensor_name(name) if isinstance(module, Pooled) else name


def _outermost(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name.partition(".")[0] for name in tensors}


def _contents(tensor: Tensor) -> str:
    import xxhash

    wide: Any = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().reshape(-1).numpy()
    return f"{tuple(tensor.shape)} {xxhash.xxh3_128_hexdigest(wide)}"
