"""Public reports of heads that are tied: by default, by a nested config, by storage, or in one of the models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .library_models import LINEAR, LM, VISION, library, loaded, mean, save
from .reported import reported
from .small_models import assert_same, config_of, merged, refused, tensors_of

HEAD = "lm_head.weight"


def gemma3(transformers):
    """A function that makes a Gemma 3 with a vision tower."""
    config = transformers.Gemma3Config(
        text_config={**LM, "head_dim": 8}, vision_config=VISION, mm_tokens_per_image=4, image_token_index=63,
        boi_token_index=62, eoi_token_index=61,
    )  # fmt: skip
    return lambda: transformers.Gemma3ForConditionalGeneration(config)


@reported(
    "arcee-ai/mergekit#464",
    what="Fine-tunes of Llama 3.2 3B that store a head of their own do not merge with those whose head is tied.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="The tied model's embedding stands in for its head: head and embedding are means, the config unties them, "
    "and the library loads both.",
)
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_tied_and_a_separate_head(tmp_path, order):
    tf = library()
    a, b = (
        save(
            tmp_path / name, lambda tied=tied: tf.LlamaForCausalLM(tf.LlamaConfig(**LM, tie_word_embeddings=tied)), seed
        )
        for seed, (name, tied) in enumerate(zip(order, (True, False), strict=True))
    )
    merged(tmp_path, LINEAR)
    found = loaded(tmp_path / "out", tf.LlamaForCausalLM)
    assert_same(found, mean(a, b))
    assert not np.array_equal(found[HEAD], found["model.embed_tokens.weight"])


@reported(
    "arcee-ai/mergekit#424",
    what="Stacking layers of Llama 3.2 fails: lm_head.weight required but not present, since these models are tied.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="The embedding is enough: three layers and no head are written, and the library ties what it loads.",
)
def test_stacked_layers_of_a_tied_llama(tmp_path):
    tf = library()
    config = tf.LlamaConfig(**LM, tie_word_embeddings=True)
    a = save(tmp_path / "a", lambda: tf.LlamaForCausalLM(config), 0)
    slices = "[{sources: [{model: ./a, layer_range: [0, 2]}]}, {sources: [{model: ./a, layer_range: [1, 2]}]}]"
    assert HEAD not in merged(tmp_path, f"merge_method: passthrough\nslices: {slices}\n")
    top = {name.replace(".1.", ".2."): values for name, values in a.items() if name.startswith("model.layers.1.")}
    found = loaded(tmp_path / "out", tf.LlamaForCausalLM)
    assert_same(found, a | top)
    np.testing.assert_array_equal(found[HEAD], found["model.embed_tokens.weight"])


@reported(
    "arcee-ai/mergekit#385",
    what="A merge of two Gemma 2 9B models gained a billion parameters: a head that Gemma ties was written.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="As many tensors are written as each model stores, the head is the merged embedding, and the library "
    "loads the mean.",
)
def test_gemma_2_keeps_its_size(tmp_path):
    tf = library()
    make = lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**LM, head_dim=8))  # noqa: E731
    a, b = (save(tmp_path / name, make, seed) for seed, name in enumerate("ab"))
    found = merged(tmp_path, LINEAR)
    assert found.keys() == tensors_of(tmp_path / "a").keys()
    assert HEAD not in found
    assert_same(loaded(tmp_path / "out", tf.Gemma2ForCausalLM), mean(a, b))


@reported(
    "arcee-ai/mergekit#632",
    what="A SLERP of the text decoders of two Gemma 3, with tower and projector of one, came out as 28.8B parameters "
    "instead of 27B.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="The same recipe gives as many tensors as each model has; tower and projector are copied bit by bit, and "
    "the decoder's matrices are spherical means.",
)
def test_modules_of_gemma_3(tmp_path):
    tf = library()
    a, b = (save(tmp_path / name, gemma3(tf), seed) for seed, name in enumerate("ab"))
    sources = "[{model: ./a, layer_range: [0, 2]}, {model: ./b, layer_range: [0, 2]}]"
    only = "{models: [{model: ./a}]}"
    merged(
        tmp_path,
        f"modules:\n  text_decoder:\n    slices: [{{sources: {sources}}}]\n  vision_tower: {only}\n"
        f"  multi_modal_projector: {only}\nmerge_method: slerp\nbase_model: ./a\nparameters: {{t: 0.5}}\n",
    )
    assert tensors_of(tmp_path / "out").keys() == tensors_of(tmp_path / "a").keys()
    found = loaded(tmp_path / "out", tf.Gemma3ForConditionalGeneration)
    for name, values in a.items():
        if "vision_tower" in name or "projector" in name:
            np.testing.assert_array_equal(found[name], values, err_msg=name)
            continue
        other = b[name]
        angle = np.arccos((values * other).sum() / np.linalg.norm(values) / np.linalg.norm(other))
        expected = (values + other) * np.sin(angle / 2) / np.sin(angle)
        np.testing.assert_allclose(found[name], expected, atol=1e-4, err_msg=name)


@reported(
    "arcee-ai/mergekit#537",
    what="Stacking layers of Gemma 3 12B ends in an AttributeError, since the projector has no number of layers.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Refused because two stacks of layers are meant, with the remedy `modules:`; with it, three layers are "
    "stacked and the library loads them.",
)
def test_stacked_layers_of_gemma_3(tmp_path):
    tf = library()
    a = save(tmp_path / "a", gemma3(tf), 0)
    slices = "[{sources: [{model: ./a, layer_range: [0, 2]}]}, {sources: [{model: ./a, layer_range: [1, 2]}]}]"
    refused(tmp_path, f"merge_method: passthrough\nslices: {slices}\n", "several stacks of layers", "language_model")
    only = "{models: [{model: ./a}]}"
    merged(
        tmp_path,
        f"merge_method: passthrough\nmodules:\n  text_decoder: {{slices: {slices}}}\n  vision_tower: {only}\n"
        f"  multi_modal_projector: {only}\n",
    )
    found = loaded(tmp_path / "out", tf.Gemma3ForConditionalGeneration)
    assert config_of(tmp_path / "out")["text_config"]["num_hidden_layers"] == 3
    prefix = "model.language_model.layers."
    top = {name.replace(f"{prefix}1.", f"{prefix}2."): t for name, t in a.items() if name.startswith(f"{prefix}1.")}
    assert_same(found, a | top)


@reported(
    "huggingface/transformers#43429",
    what="Ministral 3 is tied by its text config alone and stores no head; a loader that reads the outer config gave "
    "it random numbers.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="No head is written, and the loaded head is the merged embedding.",
)
def test_a_tie_in_the_text_config(tmp_path):
    tf = library()
    text = {"model_type": "mistral", **LM, "head_dim": 8, "tie_word_embeddings": True}
    vision = {"model_type": "pixtral", **VISION, "head_dim": 8}
    config = tf.Mistral3Config(text_config=text, vision_config=vision, image_token_index=63, tie_word_embeddings=True)
    a, b = (
        save(tmp_path / name, lambda: tf.Mistral3ForConditionalGeneration(config), seed)
        for seed, name in enumerate("ab")
    )
    for name in "ab":
        path = tmp_path / name / "config.json"
        facts = json.loads(path.read_text())
        del facts["tie_word_embeddings"]
        path.write_text(json.dumps(facts))
    found = merged(tmp_path, LINEAR)
    assert not [name for name in found if "lm_head" in name]
    assert_same(loaded(tmp_path / "out", tf.Mistral3ForConditionalGeneration), mean(a, b))


@reported(
    "safetensors/safetensors#98",
    what="A fine-tuned GPT-2 cannot be saved as safetensors: head and embedding share memory in pytorch_model.bin.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="The shared storage is read once; merged with a model that stores no head, the result stores none, and "
    "the library loads the mean.",
)
def test_a_head_by_shared_storage(tmp_path):
    tf = library()
    import torch

    make = lambda: tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2))  # noqa: E731
    a, b = (save(tmp_path / name, make, seed) for seed, name in enumerate("ab"))
    model = tf.GPT2LMHeadModel.from_pretrained(tmp_path / "b")
    torch.save(model.state_dict(), tmp_path / "b" / "pytorch_model.bin")
    (tmp_path / "b" / "model.safetensors").unlink()
    assert HEAD not in merged(tmp_path, LINEAR)
    assert_same(loaded(tmp_path / "out", tf.GPT2LMHeadModel), mean(a, b))


@reported(
    "ml-explore/mlx-lm#1298",
    what="Granite 4.1 8B declares its head tied and stores it nevertheless; a loader refuses the parameter it does "
    "not know.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Head and embedding are the same mean, so the config may call them tied as before, and the library loads "
    "them.",
)
def test_a_tied_head_that_is_stored(tmp_path: Path):
    tf = library()
    from safetensors.numpy import load_file, save_file

    config = tf.GraniteConfig(**LM, tie_word_embeddings=True)
    a, b = (save(tmp_path / name, lambda: tf.GraniteForCausalLM(config), seed) for seed, name in enumerate("ab"))
    for name in "ab":
        path = tmp_path / name / "model.safetensors"
        tensors = load_file(path)
        save_file(tensors | {HEAD: tensors["model.embed_tokens.weight"]}, path, metadata={"format": "pt"})
    found = merged(tmp_path, LINEAR)
    np.testing.assert_array_equal(found[HEAD], found["model.embed_tokens.weight"])
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True
    assert_same(loaded(tmp_path / "out", tf.GraniteForCausalLM), mean(a, b))
