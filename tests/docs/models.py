"""The models that the pages speak of: small Llamas with config and tokenizer, tuned from one base, and an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import layout

HIDDEN, LAYERS, INTERMEDIATE, VOCABULARY, RANK = 32, 4, 64, 60, 4
MODULES = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn"}
Tensors = dict[str, np.ndarray]


def write_all(folder: Path) -> None:
    """A base, two fine-tunes, two with heads, an adapter, a run with checkpoints, and three that do not fit."""
    base = _random(shapes(), np.random.default_rng(0), 0.05)
    body = {name: tensor for name, tensor in base.items() if name != "lm_head.weight"}
    _write_model(folder / "base", base)
    for seed, name in enumerate(("maths", "code"), 1):
        _write_model(folder / name, _moved(base, seed))
    for seed, (name, classes) in enumerate({"reviews": 2, "topics": 5}.items(), 3):
        head = _random({"score.weight": (classes, HIDDEN)}, np.random.default_rng(seed), 0.05)
        _write_model(folder / name, _moved(body, seed) | head)
    _write_adapter(folder / "chat-adapter")
    _write_run(folder / "run", base)
    _write_model(folder / "stranger", _random(shapes(), np.random.default_rng(9), 0.05))
    _write_model(folder / "more-words", _random(shapes(VOCABULARY + 4), np.random.default_rng(10), 0.05))
    broken = _moved(base, 5)
    broken["model.layers.2.mlp.down_proj.weight"][3, 7] = np.nan
    _write_model(folder / "diverged", broken)


def _write_run(folder: Path, base: Tensors) -> None:
    """Checkpoints as the Hugging Face Trainer leaves them, with its log."""
    log: list[dict[str, float]] = []
    for step, loss, accuracy in ((100, 1.9, 0.41), (200, 1.2, 0.78), (300, 1.0, 0.83), (400, 0.9, 0.82)):
        log += [{"step": step, "loss": loss}, {"step": step, "eval_accuracy": accuracy}]
        _write_model(folder / f"checkpoint-{step}", _moved(base, step))
        _write_json(folder / f"checkpoint-{step}" / "trainer_state.json", {"log_history": log})


def shapes(vocabulary: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
    """A Llama, by the names that transformers gives its tensors."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        found |= {f"{at}.self_attn.{module}.weight": (HIDDEN, HIDDEN) for module in MODULES}
        found |= {f"{at}.mlp.{name}_proj.weight": (INTERMEDIATE, HIDDEN) for name in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
        found |= {f"{at}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}


def _random(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator, spread: float) -> Tensors:
    return {name: (spread * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def _moved(tensors: Tensors, seed: int) -> Tensors:
    steps = _random({name: tensor.shape for name, tensor in tensors.items()}, np.random.default_rng(seed), 0.002)
    return {name: tensor + steps[name] for name, tensor in tensors.items()}


def _write_model(folder: Path, tensors: Tensors) -> None:
    write_tensors(folder / "model.safetensors", {n: t.astype(ml_dtypes.bfloat16) for n, t in tensors.items()})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(tensors["model.embed_tokens.weight"]),
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    _write_json(folder / "config.json", config)
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    words = ["<unk>", *(f"word{i}" for i in range(VOCABULARY - 1))]
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"}
    plain = dict.fromkeys(["truncation", "padding", "normalizer", "post_processor", "decoder"])
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    _write_json(folder / "tokenizer.json", plain | tokenizer)
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"})


def _write_adapter(folder: Path) -> None:
    rng, factors = np.random.default_rng(7), {}
    for i in range(LAYERS):
        for module in ("q_proj", "v_proj"):
            at = f"base_model.model.model.layers.{i}.self_attn.{module}"
            factors |= _random(
                {f"{at}.lora_A.weight": (RANK, HIDDEN), f"{at}.lora_B.weight": (HIDDEN, RANK)}, rng, 0.05
            )
    write_tensors(folder / "adapter_model.safetensors", factors)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    _write_json(folder / "adapter_config.json", settings | {"base_model_name_or_path": "base", "fan_in_fan_out": False})


def write_tensors(path: Path, tensors: Tensors) -> None:
    """A safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    by_dtype = {spec.numpy: spec for spec in DTYPES.values()}
    head, offsets = layout([TensorSpec(n, by_dtype[t.dtype], t.shape) for n, t in tensors.items()], {"format": "pt"})
    with path.open("wb") as file:
        file.write(head)
        for name, tensor in tensors.items():
            file.seek(offsets[name])
            file.write(np.ascontiguousarray(tensor).tobytes())


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
