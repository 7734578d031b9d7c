"""Slices and modules give the same model in mergekit 0.1.5 and in polyak."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("mergekit", reason="mergekit is not installed; `make parity` does it")
if version("mergekit") != "0.1.5":
    pytest.skip(f"mergekit is {version('mergekit')}, not 0.1.5", allow_module_level=True)

import torch
import transformers

from .both import tensors
from .compare import assert_same_tensors
from .families import STEPS, moved, write_model

INPUTS = ("base", *STEPS, "stranger")
SLICES = {
    "a stack of two models": """
merge_method: passthrough
slices:
  - sources: [{model: ./base, layer_range: [0, 3]}]
  - sources: [{model: ./stranger, layer_range: [1, 4]}]
""",
    "a layer three times, scaled": """
merge_method: passthrough
slices:
  - sources: [{model: ./expert-1, layer_range: [0, 2]}]
  - sources: [{model: ./expert-1, layer_range: [1, 2], parameters: {scale: [{filter: mlp, value: 0.5}, {value: 1}]}}]
  - sources: [{model: ./expert-1, layer_range: [1, 4], parameters: {scale: 0.25}}]
""",
    "fewer layers, with a base that gives the config": """
merge_method: passthrough
base_model: ./base
slices:
  - sources: [{model: ./expert-2, layer_range: [1, 3]}]
""",
    "linear, weights of slices, sources and the file": """
merge_method: linear
parameters: {weight: 0.5, normalize: true}
slices:
  - sources: [{model: ./base, layer_range: [0, 2]}, {model: ./expert-1, layer_range: [0, 2]}]
    parameters: {weight: [{filter: mlp, value: 0.9}], normalize: false}
  - sources:
      - {model: ./expert-2, layer_range: [1, 4], parameters: {weight: [0.1, 0.9]}}
      - {model: ./expert-3, layer_range: [0, 3], parameters: {weight: {filter: attn, value: 2}}}
""",
    "a gradient in every slice": """
merge_method: slerp
base_model: ./base
parameters: {t: [{filter: mlp, value: [0, 1]}, {value: [1, 0.5, 0]}]}
slices:
  - sources: [{model: ./base, layer_range: [0, 3]}, {model: ./stranger, layer_range: [0, 3]}]
  - sources: [{model: ./stranger, layer_range: [3, 4]}, {model: ./base, layer_range: [3, 4]}]
""",
    "task arithmetic, the base at other layers": """
merge_method: task_arithmetic
base_model: ./base
slices:
  - sources:
      - {model: ./base, layer_range: [0, 2]}
      - {model: ./expert-1, layer_range: [1, 3], parameters: {weight: 0.5}}
      - {model: ./expert-2, layer_range: [0, 2], parameters: {weight: 0.4}}
  - sources:
      - {model: ./expert-3, layer_range: [2, 4], parameters: {weight: [0.3, 0.8]}}
      - {model: ./base, layer_range: [2, 4]}
      - {model: ./expert-1, layer_range: [2, 4], parameters: {weight: 0.2}}
""",
    "another base in one slice": """
merge_method: task_arithmetic
base_model: ./base
parameters: {weight: 0.5}
slices:
  - sources: [{model: ./base, layer_range: [0, 2]}, {model: ./expert-1, layer_range: [0, 2]}]
  - base_model: ./expert-1
    sources: [{model: ./expert-1, layer_range: [2, 4]}, {model: ./expert-2, layer_range: [2, 4]}]
""",
}


@pytest.mark.parametrize("shape", ["llama", "bert", "gpt2"])
@pytest.mark.parametrize("text", SLICES.values(), ids=SLICES)
def test_slices_give_the_same_tensors_and_the_same_number_of_layers(families, run_both, text, shape):
    theirs, ours = run_both(families(shape), f"{text}\ndtype: float32\n")
    assert_same_tensors(tensors(ours), tensors(theirs), [tensors(families(shape) / name) for name in INPUTS])
    counts = [json.loads((out / "config.json").read_text()) for out in (ours, theirs)]
    key = "n_layer" if shape == "gpt2" else "num_hidden_layers"
    assert counts[0][key] == counts[1][key]
    loaded, problems = transformers.AutoModel.from_pretrained(ours, output_loading_info=True)
    assert loaded.config.num_hidden_layers == counts[0][key]
    assert not problems["missing_keys"] - {"pooler.dense.weight", "pooler.dense.bias"}


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoder-decoder models, as mergekit knows their modules."""
    folder = tmp_path_factory.mktemp("t5")
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=4, num_heads=4, vocab_size=96,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.T5ForConditionalGeneration(config)
    write_model(folder / "base", base, torch.float32)
    write_model(folder / "expert-1", moved(base, 1e-2, 1), torch.float32)
    return folder


BOTH = "models: [{model: ./base}, {model: ./expert-1}]"
MODULES = {
    "one way for each module": f"""
merge_method: linear
parameters: {{weight: 0.5}}
modules:
  encoder: {{{BOTH}, parameters: {{normalize: false}}}}
  shared: {{{BOTH}}}
  decoder:
    models: [{{model: ./base, parameters: {{weight: [3, 1]}}}}, {{model: ./expert-1}}]
""",
    "other depths": """
merge_method: passthrough
modules:
  encoder: {slices: [{sources: [{model: ./expert-1, layer_range: [0, 2]}]}]}
  shared: {models: [{model: ./expert-1}]}
  decoder:
    slices:
      - sources: [{model: ./base, layer_range: [0, 3]}]
      - sources: [{model: ./expert-1, layer_range: [2, 4]}]
""",
}


@pytest.mark.parametrize("text", MODULES.values(), ids=MODULES)
def test_modules_give_the_same_tensors_and_each_stack_its_own_number_of_layers(encoder_decoder, run_both, text):
    theirs, ours = run_both(encoder_decoder, f"{text}\ndtype: float32\n")
    found = tensors(ours)
    assert_same_tensors(found, tensors(theirs), [tensors(encoder_decoder / name) for name in ("base", "expert-1")])
    config = json.loads((ours / "config.json").read_text())
    for stack, key in {"encoder": "num_layers", "decoder": "num_decoder_layers"}.items():
        assert config[key] == len({name.split(".")[2] for name in found if name.startswith(f"{stack}.block.")})
    _, problems = transformers.T5ForConditionalGeneration.from_pretrained(ours, output_loading_info=True)
    assert not any(problems[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
