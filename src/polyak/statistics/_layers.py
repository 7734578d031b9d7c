"""The layers that have Grams, and their inputs as rows."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def sparse_embeddings(module: nn.Module) -> Generator[None]:
    """Make gradients of embeddings sparse inside a `with`; the setting of each is restored."""
    embeddings = {part: part.sparse for part in module.modules() if isinstance(part, nn.Embedding)}
    try:
        for part in embeddings:
            part.sparse = True
        yield
    finally:
        for part, was in embeddings.items():
            part.sparse = was


def add_square(sums: Tensor, slope: Tensor | None) -> None:
    """Add the square of a gradient, which may be sparse."""
    if slope is None:
        return
    if slope.is_sparse:
        rows = slope.coalesce()
        sums.index_add_(0, rows.indices()[0], rows.values() ** 2)
    else:
        sums.addcmul_(slope, slope)


def weight_of(layer: nn.Module) -> Tensor | None:
    """The matrix of a layer that can have a Gram, or None."""
    if isinstance(layer, nn.MultiheadAttention):
        return layer.in_proj_weight
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or is_transposed(layer):
        return layer.weight if isinstance(layer.weight, Tensor) else None
    return None


def is_transposed(layer: nn.Module) -> bool:
    """True for Hugging Face's Conv1D, a linear layer whose matrix is (inputs, outputs)."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def inputs_of(layer: nn.Module) -> int | str:
    """Number of inputs per row; or, in words, the reason why the layer has no Gram."""
    match layer:
        case nn.Conv3d():
            return "is a three-dimensional convolution"
        case nn.Conv1d() | nn.Conv2d():
            if layer.groups > 1:
                return f"is a convolution in {layer.groups} groups with different inputs"
            return layer.in_channels * math.prod(layer.kernel_size)
        case nn.MultiheadAttention():
            return layer.embed_dim
        case nn.Linear():
            return layer.in_features
        case _:
            weight = weight_of(layer)
            assert weight is not None
            return weight.shape[0]


def embedded(module: nn.Module) -> set[int]:
    """The matrices that are also embeddings: their rows are looked up, not multiplied."""
    return {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)}


def rows_of(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], mask: Tensor | None) -> Tensor | None:
    """The inputs of a layer as rows (n, d), without padding; None for cross-attention."""
    if isinstance(layer, nn.MultiheadAttention):
        return _attended(layer, args, kwargs, mask)
    x = args[0] if args else next(iter(kwargs.values()))
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return _patches(layer, x)
    return kept(x.detach(), mask)


def kept(x: Tensor, mask: Tensor | None) -> Tensor:
    """Inputs (..., d) as rows, without the positions that are False in a mask (n, positions)."""
    rows = x.reshape(-1, x.shape[-1])
    if mask is not None and (x.shape[:-1] == mask.shape or x.shape[:-1] == (mask.numel(),)):
        return rows[mask.reshape(-1).to(device=rows.device, dtype=torch.bool)]
    return rows


def _attended(
    layer: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any], mask: Tensor | None
) -> Tensor | None:
    query, key, value = (args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key", "value")))
    if query is not key or key is not value:
        return None
    x = query.detach()
    return kept(x if layer.batch_first or x.ndim == 2 else x.transpose(0, 1), mask)


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = nn.functional.pad(x.detach(), list(layer._reversed_padding_repeated_twice), mode=mode)
    flat = padded[:, :, None] if isinstance(layer, nn.Conv1d) else padded
    geometry = (layer.kernel_size, layer.dilation, layer.stride)
    size, dilation, stride = ((1, *sizes) if len(sizes) == 1 else sizes for sizes in geometry)
    columns = nn.functional.unfold(flat, size, dilation=dilation, stride=stride)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])
