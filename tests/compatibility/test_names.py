"""Public reports of names that differ: prefixes, wrappers, old names of parts, and architectures that a list lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polyak import errors

from .library_models import BERT, LINEAR, LM, VISION, library, loaded, mean, save
from .reported import reported
from .small_models import assert_same, llama, merged, refused, tensors_of, write


@reported(
    "arcee-ai/mergekit#284",
    what="Embedding models that are bare BertModels do not merge: bert.encoder... required but not present.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Tensors are matched by the names that the models have, with pooler and all; the library loads the mean.",
)
def test_bare_bert_models(tmp_path):
    tf = library()
    a, b = (save(tmp_path / name, lambda: tf.BertModel(tf.BertConfig(**BERT)), seed) for seed, name in enumerate("ab"))
    merged(tmp_path, LINEAR)
    assert_same(loaded(tmp_path / "out", tf.BertModel), mean(a, b))


@reported(
    "arcee-ai/mergekit#286",
    what="Merging three BERT embedding models fails at tensors that one lacks; here one has a masked-language-model "
    "head, so its names begin with bert. and it has no pooler.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Refused, with the prefix that makes 21 of 26 names meet; with it, and pooler and head skipped in "
    "polyak's own form, the encoders are averaged.",
)
def test_a_bare_and_a_headed_bert(tmp_path):
    tf = library()
    config = tf.BertConfig(**BERT)
    a, b = (
        save(tmp_path / name, lambda kind=kind: kind(config), seed)
        for seed, (name, kind) in enumerate((("a", tf.BertModel), ("b", tf.BertForMaskedLM)))
    )
    refused(tmp_path, LINEAR, "21 of its 26 names match", "strip_prefix: bert.", kind=errors.Mismatch)
    own = "method: linear\nbase: ./a\nmodels: [./a, {path: ./b, strip_prefix: bert.}]\nskip: ['^pooler', '^cls']\n"
    merged(tmp_path, own)
    encoders = {name: (v + b[f"bert.{name}"]) / 2 for name, v in a.items() if f"bert.{name}" in b}
    assert len(encoders) == 21
    assert_same(loaded(tmp_path / "out", tf.BertModel), a | encoders)


@reported(
    "arcee-ai/mergekit#653",
    what="TIES of a Qwen3ForCausalLM and a Qwen3Model, whose names lack `model.`, ends in a KeyError.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="The prefix is found by the library's own rules, and the result has the first model's names: the mean of "
    "the decoders, loaded as a Qwen3ForCausalLM.",
)
def test_a_qwen_3_without_its_prefix(tmp_path):
    tf = library()
    config = tf.Qwen3Config(**LM, head_dim=8, tie_word_embeddings=True)
    a = save(tmp_path / "a", lambda: tf.Qwen3ForCausalLM(config), 0)
    b = save(tmp_path / "b", lambda: tf.Qwen3Model(config), 1)
    merged(tmp_path, LINEAR)
    b = {f"model.{name}": values for name, values in b.items()}
    b["lm_head.weight"] = b["model.embed_tokens.weight"]
    assert_same(loaded(tmp_path / "out", tf.Qwen3ForCausalLM), mean(a, b))


@reported(
    "arcee-ai/mergekit#569",
    what="v_proj was missing in the list of Qwen3's tensors, so merged models had random value projections.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="There is no list of architectures: all stored tensors are merged, and the library misses none.",
)
def test_every_tensor_of_qwen_3(tmp_path):
    tf = library()
    make = lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**LM, head_dim=8))  # noqa: E731
    a, b = (save(tmp_path / name, make, seed) for seed, name in enumerate("ab"))
    merged(tmp_path, LINEAR)
    found = loaded(tmp_path / "out", tf.Qwen3ForCausalLM)
    assert sum("v_proj" in name for name in found) == 2
    assert_same(found, mean(a, b))


@reported(
    "arcee-ai/mergekit#210",
    what="TIES and DARE of Mixtral models gave models without any output: the list of Mixtral's tensors lacked some "
    "of them.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Experts, gates and norms are merged: each tensor has the value of TIES' formula for one task vector, and "
    "the library loads all of them.",
)
def test_every_tensor_of_mixtral(tmp_path):
    tf = library()
    make = lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**LM, head_dim=8, num_local_experts=4))  # noqa: E731
    a, b = (save(tmp_path / name, make, seed) for seed, name in enumerate("ab"))
    text = "merge_method: ties\nbase_model: ./a\nmodels: [{model: ./b, parameters: {weight: 0.5, density: 1}}]\n"
    merged(tmp_path, f"{text}parameters: {{normalize: false}}\n")
    expected = {name: values + 0.5 * (b[name] - values) for name, values in a.items()}
    assert_same(loaded(tmp_path / "out", tf.MixtralForCausalLM), expected)


@reported(
    "arcee-ai/mergekit#450",
    what="A Qwen2-VL and a text model of the same decoder: no common parameters were found.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Merged by `modules:`: the decoder is the mean of both, the vision tower is copied, and the library loads "
    "it.",
)
def test_a_vision_language_model_and_a_text_model(tmp_path):
    tf = library()
    text = {**LM, "tie_word_embeddings": False}
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "patch_size": 14}
    ids = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
    config = tf.Qwen2VLConfig(
        text_config={**text, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=False, **ids
    )
    a = save(tmp_path / "a", lambda: tf.Qwen2VLForConditionalGeneration(config), 0)
    b = save(tmp_path / "b", lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**text)), 1)
    merged(
        tmp_path,
        "merge_method: linear\nbase_model: ./a\nparameters: {weight: 1}\nmodules:\n"
        "  vision_tower: {models: [{model: ./a}]}\n  multi_modal_projector: {models: [{model: ./a}]}\n"
        "  text_decoder: {models: [{model: ./a}, {model: ./b}]}\n",
    )
    found = loaded(tmp_path / "out", tf.Qwen2VLForConditionalGeneration)
    decoder = {name.replace("model.", "model.language_model.", 1): values for name, values in b.items()}
    assert len(decoder.keys() & a.keys()) == len(b)
    assert_same(found, a | {name: (a[name] + values) / 2 for name, values in decoder.items()})


@reported(
    "ml-explore/mlx-lm#1525",
    what="Mistral 3 checkpoints of transformers 5 begin with model.language_model where older ones begin with "
    "language_model.model.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Both layouts of one architecture meet in a merge, and the library loads the mean.",
)
def test_two_layouts_of_mistral_3(tmp_path):
    tf = library()
    from safetensors.numpy import save_file

    text = {"model_type": "mistral", **LM, "head_dim": 8}
    vision = {"model_type": "pixtral", **VISION, "head_dim": 8}
    config = tf.Mistral3Config(text_config=text, vision_config=vision, image_token_index=63, tie_word_embeddings=False)
    a, b = (
        save(tmp_path / name, lambda: tf.Mistral3ForConditionalGeneration(config), seed)
        for seed, name in enumerate("ab")
    )
    assert tensors_of(tmp_path / "a").keys() != a.keys()
    save_file(b, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})  # by the names at run time
    assert merged(tmp_path, LINEAR).keys() == tensors_of(tmp_path / "a").keys()
    assert_same(loaded(tmp_path / "out", tf.Mistral3ForConditionalGeneration), mean(a, b))


@reported(
    "huggingface/transformers#11809",
    what="bert-base-uncased stores LayerNorm.gamma and LayerNorm.beta, its fine-tunes LayerNorm.weight and "
    "LayerNorm.bias.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="The old names meet the new ones, and the library loads the mean.",
)
@pytest.mark.parametrize("old", ["a", "b"])
def test_old_names_of_layer_norms(tmp_path, old):
    tf = library()
    from safetensors.numpy import load_file, save_file

    a, b = (save(tmp_path / name, lambda: tf.BertModel(tf.BertConfig(**BERT)), seed) for seed, name in enumerate("ab"))
    path = tmp_path / old / "model.safetensors"
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, values in load_file(path).items():
        for new, former in names.items():
            name = name.replace(new, former)  # noqa: PLW2901
        renamed[name] = values
    assert any("gamma" in name for name in renamed)
    save_file(renamed, path, metadata={"format": "pt"})
    merged(tmp_path, LINEAR)
    assert_same(loaded(tmp_path / "out", tf.BertModel), mean(a, b))


@reported(
    "huggingface/pytorch-image-models#2324",
    what="The scales of timm's LayerScale are called gamma, and a loader renamed every gamma to weight.",
    versions="files only",
    result="Names that all models have are left alone: ls1.gamma stays ls1.gamma, with the mean of the values.",
)
def test_scales_that_are_called_gamma(tmp_path):
    rng = np.random.default_rng(0)
    names = ("blocks.0.ls1.gamma", "blocks.0.norm1.weight", "blocks.0.norm1.bias")
    a, b = ({name: rng.standard_normal(4).astype(np.float32) for name in names} for _ in "ab")
    for folder, tensors in (("a", a), ("b", b)):
        write(tmp_path / folder, tensors, architectures=["TimmWrapperModel"], model_type="timm_wrapper")
    assert_same(merged(tmp_path, LINEAR), mean(a, b))


@reported(
    "mlabonne/llm-course#49",
    what="Fine-tunes of Phi-2 by its former remote code and by transformers do not merge: "
    "model.final_layernorm.weight required but not present.",
    versions="files only",
    result="Refused with the names that only one of them has, since the former code also stores query, key and value "
    "as one matrix.",
)
def test_two_codes_of_one_architecture(tmp_path):
    write(tmp_path / "a", llama(0, 1) | {"model.final_layernorm.weight": np.ones(4, np.float32)}, model_type="phi")
    old = {
        "transformer.embd.wte.weight": np.ones((8, 4), np.float32), "lm_head.ln.weight": np.ones(4, np.float32),
        "transformer.h.0.mixer.Wqkv.weight": np.ones((12, 4), np.float32),
    }  # fmt: skip
    write(tmp_path / "b", old, model_type="phi-msft")
    parts = ("'model.final_layernorm.weight' is not in b", "'lm_head.ln.weight' is not in a")
    refused(tmp_path, LINEAR, *parts, kind=errors.Mismatch)


def checkpoint(path: Path, tensors: dict[str, np.ndarray], prefix: str, **more: object) -> None:
    import torch

    path.parent.mkdir(exist_ok=True)
    named = {f"{prefix}{name}": torch.from_numpy(values) for name, values in tensors.items()}
    torch.save({"model": named, **more} if more else named, path)


@reported(
    "karpathy/nanoGPT#325",
    what="A checkpoint of a compiled model has _orig_mod. before every name, next to the optimizer's state in one "
    "file.",
    versions="torch 2.13.0",
    result="The weights are found below `model`, the prefix does not separate them from an ordinary state dict, and "
    "the optimizer's state is left out.",
)
def test_a_checkpoint_of_a_compiled_model(tmp_path):
    pytest.importorskip("torch")
    a, b = llama(0), llama(1)
    checkpoint(tmp_path / "a.pt", a, "")
    state = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    checkpoint(tmp_path / "b.pt", b, "_orig_mod.", optimizer=state, iter_num=3, config={"n_layer": 2})
    assert_same(merged(tmp_path, LINEAR.replace("./a", "./a.pt").replace("./b", "./b.pt")), mean(a, b))


@reported(
    "FareedKhan-dev/train-llm-from-scratch#36",
    what="torch.compile of a DistributedDataParallel model nests two prefixes, of which a loader strips one.",
    versions="torch 2.13.0",
    result="Nested wrappers are stripped until the names meet those of the other model, in either order.",
)
@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "module._orig_mod."])
def test_nested_wrappers(tmp_path, prefix):
    pytest.importorskip("torch")
    a, b = llama(0), llama(1)
    checkpoint(tmp_path / "a.pt", a, "")
    checkpoint(tmp_path / "b.pt", b, prefix)
    assert_same(merged(tmp_path, LINEAR.replace("./a", "./a.pt").replace("./b", "./b.pt")), mean(a, b))
