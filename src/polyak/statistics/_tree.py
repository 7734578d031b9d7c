"""Batches of any form (tensors in mappings, lists and tuples), flattened and split into examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor


def flatten(batch: object) -> tuple[list[Tensor], Callable[[Sequence[Any]], Any]]:
    """The tensors of a batch, and a function that rebuilds the batch with other tensors.

    Raises:
        TaskError: there is no tensor, or the first axes (the examples) have different lengths.
    """
    tensors: list[Any] = []

    def take(value: Any) -> Callable[[Iterator[Any]], Any]:
        if hasattr(value, "detach"):
            tensors.append(value)
            return next
        if isinstance(value, Mapping):
            parts = {key: take(item) for key, item in cast("Mapping[Any, Any]", value).items()}
            return lambda replacements: {key: part(replacements) for key, part in parts.items()}
        if isinstance(value, list | tuple):
            items = [take(item) for item in cast("Sequence[Any]", value)]
            made = cast("Callable[[Any], Any]", type(value))
            if hasattr(value, "_fields"):
                return lambda replacements: made(*[rebuild_item(replacements) for rebuild_item in items])
            return lambda replacements: made([rebuild_item(replacements) for rebuild_item in items])
        return lambda replacements: value

    rebuild = take(batch)
    lengths = {tuple(tensor.shape[:1]) for tensor in tensors}
    if len(lengths) != 1 or () in lengths:
        got = "no tensor" if not tensors else f"tensors of the shapes {[list(t.shape) for t in tensors]}"
        raise TaskError(
            f"a batch must be tensors with the examples along their first axis; got a {type(batch).__name__} with "
            f"{got}."
        )
    return tensors, lambda replacements: rebuild(iter(replacements))


def bytes_of(tensors: Sequence[Any], index: int) -> bytes:
    """The bytes of one example, as its identity."""
    import torch

    parts: list[bytes] = []
    for tensor in tensors:
        example = tensor[index].detach().cpu().contiguous()
        parts.append(f"{example.dtype} {list(example.shape)}\n".encode())
        parts.append(example.reshape(-1).view(torch.uint8).numpy().tobytes())
    return b"".join(parts)
