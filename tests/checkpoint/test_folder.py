"""Folders as Hugging Face lays them out, and folders that are something else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.hub import locate
from polyak.checkpoint.safetensors import layout
from polyak.errors import CheckpointError, UnsupportedFormat


def write_file(path: Path, *names: str) -> Path:
    """Each tensor holds one number, the length of its name."""
    start, offsets = layout([TensorSpec(name, DTYPES["F32"], (1,)) for name in names], {"format": "pt"})
    data = b"".join(np.float32(len(name)).tobytes() for name in sorted(offsets, key=lambda name: offsets[name]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + data)
    return path


def write_index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write_file(tmp_path / "one.safetensors", "a", "bb")
    write_file(tmp_path / "two.safetensors", "ccc")
    write_index(tmp_path, {"a": "one.safetensors", "bb": "one.safetensors", "ccc": "two.safetensors"})
    return tmp_path


def assert_refused(path: Path, *words: str, kind: type[Exception] = CheckpointError) -> None:
    with pytest.raises(kind) as caught:
        checkpoint.open(path)
    for word in words:
        assert word in str(caught.value)


# What is read


def test_a_single_file_is_opened_by_its_folder(tmp_path: Path):
    write_file(tmp_path / "model.safetensors", "a")
    opened = checkpoint.open(tmp_path)
    assert (opened.label, opened.folder, opened.metadata) == (str(tmp_path), tmp_path, {"format": "pt"})
    assert opened.read("a") == 1


def test_shards_are_one_checkpoint(sharded: Path):
    with checkpoint.open(str(sharded)) as opened:
        assert {name: float(opened.read(name)[0]) for name in opened.specs} == {"a": 1, "bb": 2, "ccc": 3}
        assert [stamp.path.name for stamp in opened.stamps] == ["one.safetensors", "two.safetensors"]
    with pytest.raises(CheckpointError, match="is closed"):
        opened.read("a")


def test_shards_of_pytorch_s_format_are_one_checkpoint_with_their_ties(tmp_path: Path):
    torch = pytest.importorskip("torch")
    weight = torch.ones(2)
    torch.save({"a": weight, "b": weight}, tmp_path / "one.bin")
    torch.save({"c": weight * 2}, tmp_path / "two.bin")
    write_index(tmp_path, {"a": "one.bin", "b": "one.bin", "c": "two.bin"}, "pytorch_model.bin.index.json")
    opened = checkpoint.open(tmp_path)
    assert opened.ties == {"b": "a"}
    assert list(opened.read("c")) == [2, 2]


def test_safetensors_win_over_pytorch_s_format(tmp_path: Path):
    write_file(tmp_path / "model.safetensors", "a")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    assert list(checkpoint.open(tmp_path).specs) == ["a"]


def test_a_single_file_of_another_name_is_found(tmp_path: Path):
    write_file(tmp_path / "diffusion.safetensors", "a")
    assert list(checkpoint.open(tmp_path).specs) == ["a"]


@pytest.mark.parametrize("folder", ["snapshots/abc", "snapshots/abc/text_encoder"])
def test_the_links_of_the_hub_s_cache_are_followed(tmp_path: Path, folder: str):
    blob = write_file(tmp_path / "models--o--m/blobs/123", "a")
    snapshot = tmp_path / "models--o--m" / folder
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    assert checkpoint.open(snapshot).read("a") == 1


def test_a_checkpoint_is_returned_as_it_is(tmp_path: Path):
    opened = checkpoint.open(write_file(tmp_path / "model.safetensors", "a"))
    assert checkpoint.open(opened) is opened


# What is refused


def test_an_index_that_names_a_missing_shard_is_refused(sharded: Path):
    (sharded / "two.safetensors").unlink()
    assert_refused(sharded, "two.safetensors", "named by model.safetensors.index.json", "missing")


@pytest.mark.parametrize("name", ["../two.safetensors", "sub/../../two.safetensors", "/etc/passwd"])
def test_an_index_may_not_point_out_of_the_folder(sharded: Path, name: str):
    write_index(sharded, {"a": name})
    assert_refused(sharded, name, "points out of the folder")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path):
    outside = write_file(tmp_path / "secret.safetensors", "a")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").symlink_to(outside)
    assert_refused(tmp_path / "model", "link out of the folder", str(outside))


def test_a_link_to_itself_is_refused(tmp_path: Path):
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    assert_refused(tmp_path, "model.safetensors")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, ".", "missing"])
def test_impossible_names_in_an_index_are_refused(sharded: Path, name: str):
    write_index(sharded, {"a": name})
    assert_refused(sharded)


@pytest.mark.parametrize("text", ['{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}', '{"x":1,"x":1}'])
def test_an_index_that_names_something_twice_is_refused(sharded: Path, text: str):
    (sharded / "model.safetensors.index.json").write_text(text)
    assert_refused(sharded, "index.json", "twice")


@pytest.mark.parametrize("weight_map", [None, [], "x", {}, {"a": 1}])
def test_an_index_of_another_form_is_refused(sharded: Path, weight_map: Any):
    write_index(sharded, weight_map)
    assert_refused(sharded, "weight_map")


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"weight_map":' * 5000])
def test_an_index_that_is_no_json_object_is_refused(sharded: Path, text: bytes):
    (sharded / "model.safetensors.index.json").write_bytes(text)
    assert_refused(sharded, "index.json", "JSON")


def test_a_tensor_that_is_not_in_its_shard_is_named(sharded: Path):
    write_index(sharded, {"a": "two.safetensors", "bb": "one.safetensors", "ccc": "two.safetensors"})
    assert_refused(sharded, "'a' should be in two.safetensors")


def test_stale_shards_mixed_with_an_index_are_refused(sharded: Path):
    write_file(sharded / "two.safetensors", "a", "ccc")
    assert_refused(sharded, "two.safetensors holds 'a'", "places in one.safetensors", "mixed")


def test_a_shard_with_more_than_the_index_knows_is_refused(sharded: Path):
    write_file(sharded / "two.safetensors", "ccc", "dddd")
    assert_refused(sharded, "'dddd'", "no file")


def test_an_empty_folder_is_refused(tmp_path: Path):
    assert_refused(tmp_path, "holds no model", "found nothing")


def test_a_folder_of_several_files_without_an_index_is_refused(tmp_path: Path):
    write_file(tmp_path / "one.safetensors", "a")
    write_file(tmp_path / "two.safetensors", "b")
    assert_refused(tmp_path, "one.safetensors, two.safetensors")


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model"])
def test_all_shards_of_a_model_need_no_index(tmp_path: Path, stem: str):
    for i, name in enumerate("abc", 1):
        write_file(tmp_path / f"{stem}-0000{i}-of-00003.safetensors", name)
    assert list(checkpoint.open(tmp_path).specs) == ["a", "b", "c"]
    (tmp_path / f"{stem}-00002-of-00003.safetensors").unlink()
    assert_refused(tmp_path, "neither an index nor all of them", f"Copy the rest and {stem}.safetensors.index.json")


def test_shards_without_an_index_hold_every_tensor_once(tmp_path: Path):
    write_file(tmp_path / "model-00001-of-00002.safetensors", "a")
    write_file(tmp_path / "model-00002-of-00002.safetensors", "a")
    assert_refused(tmp_path, "'a' is in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors")
    write_file(tmp_path / "model-00003-of-00003.safetensors", "b")
    assert_refused(tmp_path, "neither an index nor all of them")


def test_a_shard_of_very_many_is_refused_at_once(tmp_path: Path):
    write_file(tmp_path / "model-00001-of-99999999999999.safetensors", "a")
    assert_refused(tmp_path, "neither an index nor all of them")


def test_a_file_next_to_shards_and_their_index_is_refused(sharded: Path):
    write_file(sharded / "model.safetensors", "a")
    assert_refused(sharded, "holds two models: model.safetensors, and", "name the file model.safetensors")
    assert list(checkpoint.open(sharded / "model.safetensors").specs) == ["a"]


def test_an_index_of_the_file_next_to_it_is_no_second_model(tmp_path: Path):
    write_file(tmp_path / "model.safetensors", "a")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    assert list(checkpoint.open(tmp_path).specs) == ["a"]


def test_an_adapter_given_as_a_model_is_refused_with_a_remedy(tmp_path: Path):
    write_file(tmp_path / "adapter_model.safetensors", "a")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert_refused(tmp_path, "is an adapter", "`lora:`", kind=UnsupportedFormat)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_distributed_checkpoint_is_refused_with_the_command_that_converts_it(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    assert_refused(tmp_path, "distributed checkpoint", "dcp_to_torch", kind=UnsupportedFormat)


@pytest.mark.parametrize(("name", "what"), [("a.gguf", "GGUF"), ("tf_model.h5", "TensorFlow"), ("a.msgpack", "Flax")])
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str, what: str):
    (tmp_path / name).touch()
    assert_refused(tmp_path, what, kind=UnsupportedFormat)


def test_a_quantised_model_is_refused_by_its_configuration(tmp_path: Path):
    write_file(tmp_path / "model.safetensors", "a")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    assert_refused(tmp_path, "quantised", "'gptq'", "dequantise", kind=UnsupportedFormat)


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}])
def test_a_configuration_without_a_quantiser_is_fine(tmp_path: Path, config: Any):
    write_file(tmp_path / "model.safetensors", "a")
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint.open(tmp_path)


@pytest.mark.parametrize("leaf", ["qweight", "SCB", "weight_scale_inv", "weight.absmax", "weight.quant_state.nf4"])
@pytest.mark.parametrize("as_file", [True, False])
def test_a_quantised_model_is_refused_by_its_tensors(tmp_path: Path, leaf: str, as_file: bool):
    path = write_file(tmp_path / "model.safetensors", f"layers.0.q_proj.{leaf}")
    assert_refused(path if as_file else tmp_path, "quantised", leaf, "dequantise", kind=UnsupportedFormat)


def test_blocks_of_four_bits_are_refused(tmp_path: Path):
    write_file(tmp_path / "model.safetensors", "model.layers.0.mlp.experts.down_proj_blocks")
    assert_refused(tmp_path, "quantised", kind=UnsupportedFormat)


def test_a_tensor_that_is_called_a_scale_is_no_quantiser(tmp_path: Path):
    write_file(tmp_path / "model.safetensors", "logit_scale", "layer.scale", "logit_scales", "blocks.0.weight")
    checkpoint.open(tmp_path)


def test_what_does_not_exist_is_refused(tmp_path: Path):
    assert_refused(tmp_path / "nothing", "does not exist")


@pytest.mark.parametrize(("path", "hinted"), [("./nothing", False), ("../nothing", False), ("org/nothing", True)])
def test_only_what_could_be_a_name_on_the_hub_is_taken_for_one(tmp_path: Path, path: str, hinted: bool):
    with pytest.raises(CheckpointError, match="does not exist") as caught:
        locate(path, tmp_path)
    assert ("hf://" in str(caught.value)) == hinted


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "model.onnx").touch()
    assert_refused(tmp_path / "model.onnx", "expected a folder, or a file", kind=UnsupportedFormat)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "model.safetensors")
    assert_refused(tmp_path / "model.safetensors", "neither a file nor a folder")
    assert_refused(tmp_path, "not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path: Path):
    (tmp_path / "model").mkdir(0o000)
    assert_refused(tmp_path / "model", "Permission denied")
