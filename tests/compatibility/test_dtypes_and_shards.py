"""Public reports of dtypes, shapes, shards and indices of checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import errors

from .library_models import LINEAR, mean
from .reported import reported
from .small_models import assert_same, config_of, llama, merged, refused, tensors_of, write

OWN = "method: linear\nmodels: [./a, ./b]\n"
INDEX = "model.safetensors.index.json"


def sharded(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a model in several shards with an index, by a merge of it alone."""
    write(folder / "whole", tensors)
    (folder / "whole.yaml").write_text("{method: passthrough, models: [./whole]}")
    polyak.merge(folder / "whole.yaml", folder / "a", shard_nbytes=400)
    assert len(list((folder / "a").glob("model-*.safetensors"))) > 1


@reported(
    "arcee-ai/mergekit#316",
    what="Is anything lost when a float16 and a bfloat16 model are merged, and when is the dtype converted?",
    versions="files only",
    result="Both are read exactly and the mean is rounded once, to the first model's dtype or to the one that is set.",
)
@pytest.mark.parametrize(("dtype", "numpy"), [("", np.float16), ("dtype: bfloat16\n", ml_dtypes.bfloat16)])
def test_models_of_two_half_precisions(tmp_path, dtype, numpy):
    a = write(tmp_path / "a", {name: values.astype(np.float16) for name, values in llama(0).items()})
    b = write(tmp_path / "b", {name: values.astype(ml_dtypes.bfloat16) for name, values in llama(1).items()})
    found = merged(tmp_path, LINEAR + dtype)
    for name, values in found.items():
        exact = (a[name].astype(np.float32) + b[name].astype(np.float32)) / 2
        np.testing.assert_array_equal(values, exact.astype(numpy), err_msg=name)


@reported(
    "arcee-ai/mergekit#50",
    what="A quantiser found a merged model with BF16 and FP16 tensors next to each other, copied from its sources.",
    versions="files only",
    result="`dtype` converts every tensor that is merged or copied from a source, and the config names it.",
)
def test_one_dtype_for_copied_tensors_too(tmp_path):
    write(tmp_path / "a", {name: values.astype(np.float16) for name, values in llama(0).items()})
    write(tmp_path / "b", {name: values.astype(ml_dtypes.bfloat16) for name, values in llama(1).items()})
    slices = "[{sources: [{model: ./a, layer_range: [0, 1]}]}, {sources: [{model: ./b, layer_range: [1, 2]}]}]"
    merged(tmp_path, f"merge_method: passthrough\nslices: {slices}\ndtype: bfloat16\n")
    with polyak.open(tmp_path / "out") as out:
        assert {str(spec.stored) for spec in out.specs.values()} == {"BF16"}
    assert "bfloat16" in {config_of(tmp_path / "out").get(key) for key in ("dtype", "torch_dtype")}


@reported(
    "unslothai/unsloth#2355",
    what="The shards of a merged model were uploaded without their index, and nothing can be loaded.",
    versions="files only",
    result="All shards that their names count are read without an index: the mean has every tensor of the whole model.",
)
def test_shards_without_their_index(tmp_path):
    a, b = llama(0), write(tmp_path / "b", llama(1))
    sharded(tmp_path, a)
    (tmp_path / "a" / INDEX).unlink()
    assert_same(merged(tmp_path, OWN), mean(a, b))


@reported(
    "sgl-project/sglang#32279",
    what="A download ended early: the index names a shard that is not there, and its weights were left at random.",
    versions="files only",
    result="Refused before the merge, with the name of the missing file.",
)
def test_a_missing_shard(tmp_path):
    write(tmp_path / "b", llama(1))
    sharded(tmp_path, llama(0))
    last = sorted((tmp_path / "a").glob("model-*.safetensors"))[-1]
    last.unlink()
    refused(tmp_path, OWN, last.name, kind=errors.CheckpointError)


@reported(
    "Neph0s/CoSER#3",
    what="The index of a checkpoint in 15 files names 30, as it was written for another sharding.",
    versions="files only",
    result="Refused with a file that the index names and that is missing; without the stale index the shards are read.",
)
def test_an_index_of_another_sharding(tmp_path):
    a, b = llama(0), write(tmp_path / "b", llama(1))
    sharded(tmp_path, a)
    path = tmp_path / "a" / INDEX
    index = json.loads(path.read_text())
    index["weight_map"] = {name: file.replace("-of-", "-of-1") for name, file in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    refused(tmp_path, OWN, "-of-1", kind=errors.CheckpointError)
    path.unlink()
    assert_same(merged(tmp_path, OWN), mean(a, b))


@reported(
    "Blaizzy/mlx-vlm#1464",
    what="A quantised model.safetensors lies next to the shards of the full model, and a loader took tensors from "
    "both.",
    versions="files only",
    result="The files are not mixed: the folder is refused with both names, and without the stray file the shards "
    "are merged.",
)
def test_a_stray_file_next_to_the_shards(tmp_path):
    a, b = llama(0), write(tmp_path / "b", llama(1))
    sharded(tmp_path, a)
    write(tmp_path / "stray", llama(7))
    shutil.copy(tmp_path / "stray" / "model.safetensors", tmp_path / "a")
    refused(tmp_path, OWN, "holds two models: model.safetensors", INDEX, "Remove one", kind=errors.CheckpointError)
    (tmp_path / "a" / "model.safetensors").unlink()
    assert_same(merged(tmp_path, OWN), mean(a, b))


@reported(
    "huggingface/diffusers#14769",
    what="A model was saved again as .bin, the older safetensors file stayed, and loading silently gives the old "
    "weights.",
    versions="torch 2.13.0",
    result="The folder is read as the library reads it, safetensors first; the newer file is merged when it is named.",
)
def test_an_old_file_next_to_a_new_one(tmp_path):
    torch = pytest.importorskip("torch")
    old = write(tmp_path / "a", llama(7))
    a, b = llama(0), write(tmp_path / "b", llama(1))
    torch.save({name: torch.from_numpy(values) for name, values in a.items()}, tmp_path / "a" / "pytorch_model.bin")
    assert_same(merged(tmp_path, OWN, "old"), mean(old, b))
    assert_same(merged(tmp_path, OWN.replace("./a", "./a/pytorch_model.bin")), mean(a, b))


@reported(
    "arcee-ai/mergekit#211",
    what="Tensor size mismatch for mlp.down_proj.weight, sizes [8192, 24576] and [8192, 28672].",
    versions="files only",
    result="Refused with names, shapes and models, and with what can be merged: models of one architecture and size.",
)
def test_layers_of_two_sizes(tmp_path):
    wide = llama(1)
    for i in range(2):
        name = f"model.layers.{i}.mlp.down_proj.weight"
        wide[name] = np.concatenate([wide[name]] * 2, axis=1)
    write(tmp_path / "a", llama(0))
    write(tmp_path / "b", wide)
    parts = ("'model.layers.0.mlp.down_proj.weight' is F32 [4, 8] in a but F32 [4, 16] in b", "architecture and size")
    message = refused(tmp_path, LINEAR, *parts, kind=errors.Mismatch)
    assert "tokenizer" not in message


@reported(
    "arcee-ai/mergekit#154",
    what="Can models of different sizes be merged, such as one of 7B and one of 70B parameters?",
    versions="files only",
    result="No: refused with the shapes, and without remedies for vocabularies or heads, which would not help.",
)
def test_models_of_two_widths(tmp_path):
    write(tmp_path / "a", llama(0))
    write(tmp_path / "b", llama(1, width=6))
    message = refused(tmp_path, LINEAR, "F32 [8, 4] in a but F32 [8, 6] in b", kind=errors.Mismatch)
    assert message.endswith("use models of one architecture and size.")


@reported(
    "AUTOMATIC1111/stable-diffusion-webui#3484",
    what="An inpainting model, whose first convolution has nine channels, cannot be merged with an ordinary one.",
    versions="files only",
    result="Refused with both shapes and `skip:`; with it, the convolution is the inpainting model's and all else is "
    "merged.",
)
def test_an_inpainting_model(tmp_path):
    rng = np.random.default_rng(0)
    first, other = "model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight"
    a, b = ({first: rng.normal(size=(4, c, 3, 3)), other: rng.normal(size=(4, 4, 3, 3))} for c in (9, 4))
    for name, tensors in (("a", a), ("b", b)):
        write(tmp_path / name, {key: values.astype(np.float32) for key, values in tensors.items()})
    text = "method: linear\nbase: ./a\nmodels: [./a, ./b]\n"
    refused(tmp_path, text, "[4, 9, 3, 3] in base but F32 [4, 4, 3, 3] in b", "`skip: REGEX`", kind=errors.Mismatch)
    found = merged(tmp_path, f"{text}skip: input_blocks\\.0\\.0\\.weight\n")
    assert_same(found, {first: a[first], other: (a[other] + b[other]) / 2})


@reported(
    "AUTOMATIC1111/stable-diffusion-webui#6728",
    what="CLIP's position ids, stored as int64, became fractions by merging, and tokens were read at wrong places.",
    versions="files only",
    result="Integers are never averaged: equal ids are copied in their dtype, and ids that differ are refused with a "
    "remedy that works.",
)
def test_position_ids(tmp_path):
    name = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    ids = np.arange(6, dtype=np.int64)[None]
    a = write(tmp_path / "a", {"w.weight": np.zeros((2, 2), np.float32), name: ids})
    write(tmp_path / "b", {"w.weight": np.ones((2, 2), np.float32), name: ids})
    found = merged(tmp_path, OWN)
    np.testing.assert_array_equal(found[name], ids)
    assert found[name].dtype == np.int64
    np.testing.assert_array_equal(found["w.weight"], np.full((2, 2), 0.5))
    write(tmp_path / "b", {"w.weight": np.ones((2, 2), np.float32), name: ids + 1})
    refused(tmp_path, OWN, name, "`buffers: first`", kind=errors.PolyakError)
    again = merged(tmp_path, f"{OWN}buffers: first\n", "again")
    np.testing.assert_array_equal(again[name], a[name])


@reported(
    "arcee-ai/mergekit#609",
    what="A float16 merge of bfloat16 models held invalid values: quantisers warn, and answers are nonsense.",
    versions="files only",
    result="A value that float16 cannot hold is refused with its tensor; in bfloat16 the merge is right.",
)
def test_values_beyond_float16(tmp_path):
    large = llama(1) | {"model.norm.weight": np.full(4, 2e5, np.float32)}
    for name, tensors in (("a", llama(0)), ("b", large)):
        write(tmp_path / name, {key: values.astype(ml_dtypes.bfloat16) for key, values in tensors.items()})
    refused(tmp_path, f"{LINEAR}dtype: float16\n", "model.norm.weight", kind=errors.PolyakError)
    merged(tmp_path, f"{LINEAR}dtype: bfloat16\n")
    expected = (tensors_of(tmp_path / "a")["model.norm.weight"].astype(np.float32) + 2e5) / 2
    found = tensors_of(tmp_path / "out")["model.norm.weight"].astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=0.01)
