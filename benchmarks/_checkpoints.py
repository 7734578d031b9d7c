"""Checkpoints of a given shape, written fast: what the benchmarks merge."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import layout


@dataclass(frozen=True)
class Llama:
    """The dimensions of a Llama-shaped model."""

    hidden: int
    layers: int
    intermediate: int
    vocabulary: int

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        h, m = self.hidden, self.intermediate
        yield "model.embed_tokens.weight", (self.vocabulary, h)
        for i in range(self.layers):
            at = f"model.layers.{i}"
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                yield f"{at}.self_attn.{name}.weight", (h, h)
            yield f"{at}.mlp.gate_proj.weight", (m, h)
            yield f"{at}.mlp.up_proj.weight", (m, h)
            yield f"{at}.mlp.down_proj.weight", (h, m)
            yield f"{at}.input_layernorm.weight", (h,)
            yield f"{at}.post_attention_layernorm.weight", (h,)
        yield "model.norm.weight", (h,)
        yield "lm_head.weight", (self.vocabulary, h)

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.hidden // 64,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


SHAPES = {
    "60M": Llama(512, 8, 1408, 32000),
    "150M": Llama(768, 14, 2048, 32000),
    "500M": Llama(1280, 22, 3456, 32000),
    "3B": Llama(2560, 32, 8704, 32000),
}


def family(folder: Path, shape: Llama, experts: int, dtype: str = "BF16") -> list[Path]:
    """A base and its fine-tunes, in folders `base`, `expert-0`, ...; made once."""
    paths = [folder / name for name in ("base", *(f"expert-{i}" for i in range(experts)))]
    for number, path in enumerate(paths):
        if not (path / "model.safetensors").exists():
            write(path, list(shape.shapes()), shape.config(), number, dtype)
    return paths


def write(
    path: Path, shapes: list[tuple[str, tuple[int, ...]]], config: dict[str, object], number: int, dtype: str
) -> None:
    """One model: normal numbers of standard deviation 0.02, moved by 0.001 for every model but the base (number 0)."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    kind = DTYPES[dtype]
    specs = [TensorSpec(name, kind, shape) for name, shape in shapes]
    head, offsets = layout(specs, {"format": "pt"})
    part = path / "part"
    with part.open("wb") as file:
        file.write(head)
        for i, spec in enumerate(specs):
            file.seek(offsets[spec.name])
            values = _normal(1000 + i, spec.numel, 0.02)
            if number:
                values += _normal(1_000_000 * number + i, spec.numel, 0.001)
            file.write(values.astype(kind.numpy).tobytes())
    os.rename(part, path / "model.safetensors")


def _normal(seed: int, n: int, scale: float) -> np.ndarray:
    return np.random.Generator(np.random.SFC64(seed)).standard_normal(n, dtype=np.float32) * np.float32(scale)
