"""Whole files of mergekit from public reports: several documents, repeated bases, dtypes, anchors, and MoE files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import polyak

from .reported import reported
from .small_models import assert_same, config_of, llama, merged, refused, tensors_of, write


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    return {name: write(tmp_path / name, llama(seed)) for seed, name in enumerate("abc")}


@reported(
    "arcee-ai/mergekit#477",
    what="A file of several merges, of which later ones name earlier ones, fails in the YAML reader of mergekit-yaml.",
    versions="files only",
    result="The earlier merge is computed in memory and enters the last one unrounded: the values of both formulas.",
)
def test_a_file_of_several_merges(tmp_path, models):
    halves = "[{model: ./a, parameters: {weight: 1}}, {model: ./b, parameters: {weight: 3}}]"
    last = "[{model: first, parameters: {weight: 1}}, {model: ./c, parameters: {weight: 0.5}}]"
    found = merged(
        tmp_path,
        f"name: first\nmerge_method: linear\nmodels: {halves}\n---\n"
        f"merge_method: task_arithmetic\nbase_model: ./a\nmodels: {last}\n",
    )
    a, b, c = (models[name] for name in "abc")
    first = {name: (a[name] + 3 * b[name]) / 4 for name in a}
    assert_same(found, {name: a[name] + (first[name] - a[name]) + 0.5 * (c[name] - a[name]) for name in a})


@reported(
    "arcee-ai/mergekit#398",
    what="Stacking ranges of Mistral Large with `dtype: bfloat` fails at a k_norm that only related models have.",
    versions="files only",
    result="The dtype is refused with the possible ones; then all tensors that the model has are stacked, and no "
    "others are expected.",
)
def test_a_misspelt_dtype_and_a_norm_of_other_models(tmp_path, models):
    slices = "[{sources: [{model: ./a, layer_range: [0, 2]}]}, {sources: [{model: ./a, layer_range: [1, 2]}]}]"
    text = f"dtype: bfloat\nmerge_method: passthrough\nslices: {slices}\n"
    refused(tmp_path, text, "dtype must be one of", "bfloat16")
    found = merged(tmp_path, text.replace("bfloat", "bfloat16"))
    sources = {name.replace(".2.", ".1."): name for name in found}
    assert sources.keys() == models["a"].keys()
    for source, name in sources.items():
        np.testing.assert_array_equal(found[name], models["a"][source].astype(found[name].dtype), err_msg=name)
    assert len(found) == len(models["a"]) + 3


@reported(
    "arcee-ai/mergekit#230",
    what="Is a base that is listed among the models, without parameters, another model of the merge?",
    versions="files only",
    result="No: with or without that entry, the same bytes are written.",
)
def test_a_base_among_the_models(tmp_path, models):
    rest = "".join(f"- {{model: ./{name}, parameters: {{weight: 0.5, density: 0.5}}}}\n" for name in "bc")
    head = "merge_method: ties\nbase_model: ./a\nparameters: {normalize: false, int8_mask: true}\nmodels:\n"
    merged(tmp_path, f"{head}- model: ./a\n  # no parameters necessary for base model\n{rest}", "listed")
    merged(tmp_path, head + rest, "unlisted")
    first, second = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("listed", "unlisted"))
    assert first == second
    assert not np.array_equal(tensors_of(tmp_path / "listed")["lm_head.weight"], models["a"]["lm_head.weight"])


@pytest.mark.slow
@reported(
    "arcee-ai/mergekit#604",
    what="`dtype: float16` was ignored by arcee_fusion: whatever is set, the result is float32.",
    versions="files only",
    result="The result has the dtype that is set, in the tensors and in the config, and equals the float32 result "
    "rounded once.",
)
@pytest.mark.parametrize(("key", "dtype", "stored"), [("dtype", "float16", "F16"), ("out_dtype", "bfloat16", "BF16")])
def test_the_dtype_of_a_fusion(tmp_path, models, key, dtype, stored):
    text = "merge_method: arcee_fusion\nbase_model: ./a\nmodels: [{model: ./b}]\n"
    exact = merged(tmp_path, text, "exact")
    found = merged(tmp_path, f"{text}{key}: {dtype}\n")
    with polyak.open(tmp_path / "out") as out:
        assert {str(spec.stored) for spec in out.specs.values()} == {stored}
    assert config_of(tmp_path / "out").get("dtype", config_of(tmp_path / "out").get("torch_dtype")) == dtype
    for name, values in exact.items():
        np.testing.assert_array_equal(found[name], values.astype(found[name].dtype), err_msg=name)


@reported(
    "arcee-ai/mergekit#198",
    what="The attention of repeated layers was attenuated by `scale` with filters, shared between slices by YAML "
    "anchors under keys that are no keys of mergekit.",
    versions="files only",
    result="Keys that are not mergekit's are refused by name; with the anchors where they are first used, q_proj is "
    "scaled by the factor and everything else is copied.",
)
def test_attenuated_copies_of_layers(tmp_path, models):
    scale = "&less {scale: [{filter: q_proj, value: 0.5}, {value: 1.0}]}"
    slices = (
        "slices:\n- sources: [{model: ./a, layer_range: [0, 2]}]\n"
        f"- sources: [{{model: ./a, layer_range: [0, 1], parameters: {scale}}}]\n"
        "- sources: [{model: ./a, layer_range: [1, 2], parameters: *less}]\n"
    )
    text = f"merge_method: passthrough\n{slices}"
    refused(tmp_path, f"attenuate-env: {{parameters: 1}}\n{text}", "attenuate-env is an unknown key")
    found, a = merged(tmp_path, text), models["a"]
    assert config_of(tmp_path / "out")["num_hidden_layers"] == 4
    for i in range(4):
        for part in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm"):
            factor = 0.5 if i >= 2 and part == "self_attn.q_proj" else 1
            source = a[f"model.layers.{i % 2}.{part}.weight"]
            np.testing.assert_array_equal(found[f"model.layers.{i}.{part}.weight"], factor * source)


@reported(
    "arcee-ai/mergekit#97",
    what="A mixture-of-experts file for mergekit-moe fails in the middle of its work, at a name that the models lack.",
    versions="files only",
    result="Refused at once by the key that makes it such a file.",
)
def test_a_file_for_mergekit_moe(tmp_path, models):
    text = (
        "base_model: ./a\ngate_mode: cheap_embed\nexperts:\n"
        "- {source_model: ./b, positive_prompts: ['']}\n- {source_model: ./c, positive_prompts: ['']}\n"
    )
    refused(tmp_path, text, "gate_mode cannot be used", "mergekit-moe")
