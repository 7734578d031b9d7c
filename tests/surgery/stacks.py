"""Small stacks of layers in which every number says where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..engine.conftest import write_model

HIDDEN = 4
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "layer_types": ["full", "sliding", "full", "sliding"],
    "vocab_size": 10,
    "tie_word_embeddings": False,
    "architectures": ["LlamaForCausalLM"],
}


def tensors(origin: float, layers: int = 4, prefix: str = "model.") -> dict[str, np.ndarray]:
    """Layer i of a model holds 100 * origin + i; embedding, norm and head hold 100 * origin + 50, 60 and 70."""

    def full(value: float, *shape: int) -> np.ndarray:
        return np.full(shape, 100 * origin + value, np.float32)

    found = {f"{prefix}embed_tokens.weight": full(50, 10, HIDDEN)}
    for i in range(layers):
        found[f"{prefix}layers.{i}.mlp.weight"] = full(i, HIDDEN, HIDDEN)
        found[f"{prefix}layers.{i}.norm.weight"] = full(i, HIDDEN)
    return found | {f"{prefix}norm.weight": full(60, HIDDEN), "lm_head.weight": full(70, 10, HIDDEN)}


def write_stacks(folder: Path, **changes: object) -> Path:
    """Models a, b and c of four layers."""
    for origin, name in enumerate("abc", 1):
        write_model(folder / name, tensors(origin), CONFIG | changes)
    return folder
