"""Tiny random models, saved by transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .small_models import Tensors

LM = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
BERT = {key: LM[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
BERT |= {"num_hidden_layers": 1, "max_position_embeddings": 32}
VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
LINEAR = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: ./a}, {model: ./b}]\n"


def library() -> Any:
    """The module transformers, without its progress bars; the test is skipped where it is not installed."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def save(folder: Path, make: Callable[[], Any], seed: int) -> Tensors:
    """Save a model with random weights and return its state dict, in which tied tensors occur under all names."""
    import torch

    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():  # norms are ones and biases zeros otherwise
            parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    return state_of(model)


def state_of(model: Any) -> Tensors:
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def loaded(folder: Path, kind: Any) -> Tensors:
    """The state dict of the model as the library loads it, with nothing missing, left over or of another shape."""
    model, facts = kind.from_pretrained(folder, output_loading_info=True)
    problems = {key: value for key, value in facts.items() if value and key.endswith(("keys", "msgs"))}
    assert not problems, problems
    return state_of(model)


def mean(a: Tensors, b: Tensors) -> Tensors:
    return {name: ((a[name] + b[name]) / 2).astype(np.float32) for name in a}
