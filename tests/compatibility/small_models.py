"""Small models of named tensors for the situations of public reports, and merges of them as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import polyak
from polyak import errors

from ..engine.conftest import write_model

WIDTH, ROWS = 4, 8
Tensors = dict[str, np.ndarray]


def llama(seed: int, layers: int = 2, *, rows: int = ROWS, width: int = WIDTH, head: bool = True) -> Tensors:
    """Tensors named as those of a LlamaForCausalLM."""
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (rows, width)}
    for i in range(layers):
        shapes[f"model.layers.{i}.self_attn.q_proj.weight"] = (width, width)
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (width, 2 * width)
        shapes[f"model.layers.{i}.input_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if head:
        shapes["lm_head.weight"] = (rows, width)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path, tensors: Tensors, **config: Any) -> Tensors:
    """Write a model; its config is that of a Llama of as many layers as there are names for."""
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in tensors if ".layers." in name}
    facts = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": len(layers)}
    write_model(folder, tensors, facts | {"tie_word_embeddings": False} | config)
    return tensors


def write_tokenizer(folder: Path, tokens: Sequence[str], special: Sequence[str] = (), **config: Any) -> None:
    """A tokenizer of whole words, in which the special tokens are added tokens."""
    ids = {token: i for i, token in enumerate(tokens)}
    data = {
        "version": "1.0",
        "added_tokens": [{"id": ids[token], "content": token, "special": True} for token in special],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {token: i for token, i in ids.items() if token not in special},
            "unk_token": tokens[0],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def merged(folder: Path, text: str, out: str = "out") -> Tensors:
    """Merge by a recipe file in the folder and read the tensors of the result."""
    (folder / "recipe.yaml").write_text(text)
    polyak.merge(folder / "recipe.yaml", folder / out)
    return tensors_of(folder / out)


def tensors_of(path: Path) -> Tensors:
    """All tensors of a model, by polyak's own reader."""
    with polyak.open(path) as model:
        return {name: model.read(name) for name in model.specs}


def config_of(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "config.json").read_text())


def refused(folder: Path, text: str, *parts: str, kind: type[errors.PolyakError] = errors.RecipeError) -> str:
    """The message with which a recipe is refused before anything is written; it contains the given parts."""
    (folder / "recipe.yaml").write_text(text)
    try:
        polyak.merge(folder / "recipe.yaml", folder / "refused")
    except kind as error:
        message = str(error)
    else:
        raise AssertionError("the recipe was merged")
    assert not (folder / "refused").exists()
    for part in parts:
        assert part in message, message
    return message


def assert_same(actual: Tensors, expected: Mapping[str, np.ndarray]) -> None:
    """The same names, and the same values up to the rounding of float32."""
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
