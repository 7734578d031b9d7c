"""Bases and trained adapters for the rebuilt reports, and the models that come out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polyak import adapters, checkpoint

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def llama(**settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES | settings))


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=16))


def shifted(model: Any, seed: int = 0) -> Any:
    """The model with random numbers added to all parameters that are trained."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model.eval()


def trained(folder: Path, base: Any, config: Any, *, seed: int = 0, name: str = "adapter") -> Any:
    """Write `base` and an adapter of random numbers; returns the adapted model of PEFT."""
    import peft
    import torch

    torch.manual_seed(seed)
    if not (folder / "base").exists():
        write_base(base, folder / "base")
    adapted = shifted(peft.get_peft_model(base, config), seed)
    adapted.save_pretrained(folder / name)
    return adapted


def write_base(model: Any, folder: Path) -> None:
    import torch

    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        folder.mkdir()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def baked(folder: Path, adapter: str = "adapter", **options: Any) -> dict[str, np.ndarray]:
    """The tensors of the base with the adapter, as `polyak lora bake` writes them to the folder `baked`."""
    adapters.bake(folder / "base", folder / adapter, folder / "baked", **options)
    return tensors(folder / "baked")


def tensors(path: Path | Mapping[str, Any]) -> dict[str, np.ndarray]:
    with checkpoint.open(path) as opened:
        return {name: opened.read(name) for name in opened.specs}


def logits(model: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.arange(8)[None]).logits.numpy()


def close(values: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    """True if the largest difference is small against the largest value."""
    return bool(np.abs(values - expected).max() <= tolerance * np.abs(expected).max())


def baked_logits(folder: Path) -> np.ndarray:
    """The logits of the base with the adapter, baked by polyak and loaded by transformers."""
    from transformers import AutoModelForCausalLM

    baked(folder)
    return logits(AutoModelForCausalLM.from_pretrained(folder / "baked"))


def changed(folder: Path, **settings: Any) -> None:
    """Change settings of an adapter's configuration; None removes one."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
