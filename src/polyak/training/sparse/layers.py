"""The weights of a module that can be pruned, their masks, and what a sparse model would compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...checkpoint import Checkpoint, SafetensorsFile
from ...errors import CheckpointError, RecipeError
from ...modules import LiveModel, write_tensors
from ...reading import search
from .selectors import Masks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...tasks import Batch, Task

MASKS = "masks.safetensors"


def prunable(live: LiveModel, dense: str) -> tuple[str, ...]:
    """Tensors of the weights of linear and convolutional layers, in the order of the module.

    Biases, norms and embeddings are never pruned, nor a head that is tied to an embedding.

    Args:
        live: The module.
        dense: Regular expression for the names of tensors that stay dense; empty for none.

    Raises:
        RecipeError: nothing is left.
    """
    from torch import nn

    tables = {id(part.weight) for part in live.module.modules() if isinstance(part, nn.Embedding)}
    names = [
        live.names[f"{path}.weight".lstrip(".")]
        for path, part in live.module.named_modules()
        if is_layer(part) and f"{path}.weight".lstrip(".") in live.names and id(part.weight) not in tables
    ]
    kept = tuple(name for name in names if not (dense and search(dense, name)))
    if not kept:
        why = f"`dense: {dense}` leaves all {len(names)} layers dense" if names else "the model has no such layers"
        raise RecipeError(f"there is no linear or convolutional layer to prune: {why}.")
    return kept


def is_layer(part: Any) -> bool:
    """True for linear and convolutional layers, also those of GPT-2."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    return isinstance(part, nn.Linear | _ConvNd) or type(part).__name__ == "Conv1D"


def write_masks(folder: Path, masks: Masks) -> None:
    """Write masks as booleans."""
    import torch

    write_tensors(folder / MASKS, {name: torch.from_numpy(mask) for name, mask in masks.items()}, {})


def read_masks(folder: Path) -> Masks:
    """Read masks.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    with SafetensorsFile(folder / MASKS) as file:
        return {name: file.read(name).astype(np.bool_) for name in file.specs}


def check_support(model: Checkpoint, masks: Masks) -> int:
    """Check that weights are zero wherever their mask is; the number of weights that are not.

    Raises:
        CheckpointError: one is not zero: the masks were not kept.
    """
    count = 0
    for name, mask in masks.items():
        weight = model.read(name)
        count += np.count_nonzero(weight)
        if wrong := np.count_nonzero(weight[~mask]):
            raise CheckpointError(f"{model.label}: {wrong} pruned weights of {name!r} are not zero.")
    return int(count)


def as_factors(masks: Masks) -> dict[str, Tensor]:
    """Masks as 0 and 1 for the training loop."""
    import torch

    return {name: torch.from_numpy(mask.astype(np.float32)) for name, mask in masks.items()}


def multiplications(live: LiveModel, task: Task, batch: Batch, masks: Mapping[str, Any]) -> tuple[int, int]:
    """Multiplications of layers for one example: of the dense model, and of one that skips pruned weights.

    Those of attention and norms are not counted.
    """
    import torch

    counted = [0, 0]
    tensor_of = {path: live.names.get(f"{path}.weight".lstrip(".")) for path, _ in live.module.named_modules()}

    def count(path: str, part: Any, output: Tensor) -> None:
        weight = part.weight
        uses = output.numel() // (output.shape[1] if _is_convolution(part) else output.shape[-1]) // len(batch)
        mask = masks.get(tensor_of[path] or "")
        counted[0] += uses * weight.numel()
        counted[1] += uses * (weight.numel() if mask is None else int(np.count_nonzero(mask)))

    hooks = [
        part.register_forward_hook(lambda part, _, output, path=path: count(path, part, output))
        for path, part in live.module.named_modules()
        if is_layer(part)
    ]
    try:
        with torch.inference_mode():
            task.outputs(live.module, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return counted[0], counted[1]


def _is_convolution(part: nn.Module) -> bool:
    from torch.nn.modules.conv import _ConvNd

    return isinstance(part, _ConvNd)
