"""Small families of transformers models that mergekit and polyak are both given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

HIDDEN, LAYERS, VOCABULARY = 32, 4, 96  # four layers tell apart what differs from layer to layer
STEPS = {"expert-1": 1e-3, "expert-2": 3e-3, "expert-3": 1e-2}  # standard deviation of what each expert learned
MODEL_MAX_LENGTH = {"base": 100, "expert-1": 101, "expert-2": 102, "expert-3": 103, "stranger": 104}


def llama(layers: int = LAYERS, **changes: Any) -> transformers.PreTrainedConfig:
    return transformers.LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        **changes,
    )


def bert(layers: int = LAYERS, **changes: Any) -> transformers.PreTrainedConfig:
    # Forty classes: in a bias of two, `breadcrumbs` and `model_stock` differ on purpose.
    return transformers.BertConfig(
        **{"num_labels": 40, **changes},
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
    )


def gpt2(layers: int = LAYERS, **changes: Any) -> transformers.PreTrainedConfig:
    shape = {"n_embd": HIDDEN, "n_layer": layers, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 64}
    return transformers.GPT2Config(**shape, bos_token_id=1, eos_token_id=1, **changes)


CONFIGS = {"llama": llama, "bert": bert, "gpt2": gpt2}
HEADS = {"llama": "LlamaForCausalLM", "bert": "BertForSequenceClassification", "gpt2": "GPT2LMHeadModel"}


def write_family(folder: Path, shape: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Write `base`, experts that moved away from it, and a `stranger` that shares nothing but the shapes."""
    config = CONFIGS[shape](**changes)
    base = initial(config, shape, seed=0)
    write_model(folder / "base", base, dtype)
    for seed, (name, step) in enumerate(STEPS.items(), start=1):
        write_model(folder / name, moved(base, step, seed), dtype)
    write_model(folder / "stranger", initial(config, shape, seed=99), dtype)
    return folder


def initial(config: transformers.PreTrainedConfig, shape: str, seed: int) -> transformers.PreTrainedModel:
    generator = torch.Generator().manual_seed(seed)
    model = getattr(transformers, HEADS[shape])(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            ones = "norm" in name.lower() or "ln_" in name
            parameter.copy_((ones and "bias" not in name) + 0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def moved(base: transformers.PreTrainedModel, step: float, seed: int) -> transformers.PreTrainedModel:
    generator = torch.Generator().manual_seed(seed)
    model = type(base)(base.config)
    model.load_state_dict(base.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(step * torch.randn(parameter.shape, generator=generator))
    return model


def write_model(folder: Path, model: transformers.PreTrainedModel, dtype: torch.dtype) -> Path:
    """Write a model with a tokenizer, both marked with the model's name."""
    model.to(dtype).save_pretrained(folder)
    _write_tokenizer(folder)
    at = folder / "config.json"
    at.write_text(json.dumps({**json.loads(at.read_text()), "written_as": folder.name}))
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    length = MODEL_MAX_LENGTH[folder.name]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w0", eos_token="w1", model_max_length=length
    ).save_pretrained(folder)
