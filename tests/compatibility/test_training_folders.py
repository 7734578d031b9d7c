"""Reports of folders that training frameworks write, where a model or an adapter was expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak as api
from polyak import adapters, checkpoint, recipe
from polyak.errors import CheckpointError, UnsupportedFormat

from ..adapters.made import deltas, write_adapter
from ..docs.models import write_tensors
from .adapted import baked, changed, tensors
from .reported import reported

torch = pytest.importorskip("torch")

SHAPES = {"layer": (12, 8)}


def write_base(folder: Path) -> np.ndarray:
    weight = np.random.default_rng(3).standard_normal((12, 8)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", {"layer.weight": weight})
    return weight


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def sharded(folder: Path, state: dict[str, Any]) -> Path:
    """What accelerate writes for FSDP with SHARDED_STATE_DICT, by PyTorch's distributed checkpoints."""
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": state}, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)
    return folder


@reported(
    "verl-project/verl#7285",
    what="verl's merger writes the base unchanged and an adapter beside it, whose `lora_alpha` is 0.",
    versions="files only",
    result="An adapter with alpha 0 is refused, saying where it comes from; with the alpha of the training it is "
    "baked: W + s B A.",
)
def test_an_adapter_of_verl(tmp_path: Path):
    weight = write_base(tmp_path / "base")
    folder = write_adapter(tmp_path / "base" / "lora_adapter", shapes=SHAPES, lora_alpha=0)
    with pytest.raises(CheckpointError, match=r"lora_alpha is 0.*verl.*set lora_alpha to the alpha of the training"):
        baked(tmp_path, "base/lora_adapter")
    changed(folder, lora_alpha=4)
    np.testing.assert_allclose(
        baked(tmp_path, "base/lora_adapter")["layer.weight"], weight + deltas(folder)["layer"], 1e-5
    )


@reported(
    "huggingface/accelerate#2848",
    what="`accelerate merge-weights` failed on the folder of a training step: it needs a folder inside.",
    versions="accelerate 1.15.0, torch 2.13.0",
    result="Refused with the command for the right folder; run as told, the model is read and is the trained one.",
)
@pytest.mark.filterwarnings("ignore")
def test_shards_of_fsdp(tmp_path: Path):
    accelerate = pytest.importorskip("accelerate.utils")
    state = {"layer.weight": torch.randn(12, 8), "layer.bias": torch.randn(12)}
    folder = sharded(tmp_path / "checkpoint-2000", state)
    with pytest.raises(UnsupportedFormat) as refused:
        checkpoint.open(folder)
    told = re.search(r"accelerate merge-weights (\S+) NEW_FOLDER", str(refused.value))
    assert told
    accelerate.merge_fsdp_weights(told[1], str(tmp_path / "new"))
    for name, values in tensors(tmp_path / "new").items():
        np.testing.assert_array_equal(values, state[name].numpy())


@reported(
    "hiyouga/LlamaFactory#3573",
    what="An adapter that was trained with FSDP lies in shards, and exporting it asked for an adapter_config.json.",
    versions="torch 2.13.0",
    result="`lora bake` names the distributed checkpoint and PyTorch's command; its file, as adapter_model.bin beside "
    "the configuration, is baked: W + s B A.",
)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_in_shards_of_fsdp(tmp_path: Path):
    from torch.distributed.checkpoint import format_utils

    write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", shapes=SHAPES)
    expected = tensors(tmp_path / "base")["layer.weight"] + deltas(adapter)["layer"]
    factors = tensors(adapter / "adapter_model.safetensors")
    state = {name.replace(".weight", ".default.weight"): torch.tensor(value) for name, value in factors.items()}
    folder = sharded(tmp_path / "step", state) / "pytorch_model_fsdp_0"
    with pytest.raises(UnsupportedFormat, match=r"distributed checkpoint.*format_utils dcp_to_torch"):
        adapters.bake(tmp_path / "base", folder, tmp_path / "out")
    format_utils.dcp_to_torch_save(folder, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    np.testing.assert_allclose(baked(tmp_path)["layer.weight"], expected, rtol=1e-5)


@reported(
    "deepspeedai/DeepSpeed#2413",
    what="The model states of a ZeRO-3 rank hold empty tensors, which do not fit the model.",
    versions="torch 2.13.0",
    result="Refused, folder and file alike, with DeepSpeed's zero_to_fp32.",
)
def test_the_states_of_one_rank(tmp_path: Path):
    folder = touch(tmp_path / "run", "zero_to_fp32.py", "latest") / "global_step10"
    folder.mkdir()
    file = folder / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    torch.save({"module": {"layer.weight": torch.zeros(0)}, "param_shapes": [{"layer.weight": [12, 8]}]}, file)
    for path in (tmp_path / "run", folder, file):
        with pytest.raises(UnsupportedFormat, match=r"a DeepSpeed checkpoint.*zero_to_fp32"):
            checkpoint.open(path)


@reported(
    "hiyouga/LlamaFactory#765",
    what="A LoRA run with ZeRO-3 left shards of ranks and no adapter: `does not contain a LoRA weight`.",
    versions="files only",
    result="`lora bake` names the DeepSpeed checkpoint and zero_to_fp32.",
)
def test_an_adapter_in_shards_of_deepspeed(tmp_path: Path):
    write_base(tmp_path / "base")
    touch(tmp_path / "adapter", "latest", "global_step5/zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(UnsupportedFormat, match=r"DeepSpeed checkpoint.*zero_to_fp32"):
        baked(tmp_path)


@reported(
    "zz1358m/SofT-GRPO-master#2",
    what="accelerate could not merge the shards that verl writes, since they have no .metadata.",
    versions="files only",
    result="Refused as verl's, with the command of its own merger for that folder.",
)
def test_shards_of_verl(tmp_path: Path):
    names = [f"model_world_size_2_rank_{rank}.pt" for rank in range(2)]
    folder = touch(tmp_path / "global_step_627" / "actor", *names, "huggingface/config.json")
    with pytest.raises(
        UnsupportedFormat, match=rf"verl.model_merger merge --backend fsdp --local_dir {re.escape(str(folder))}"
    ):
        checkpoint.open(folder)


@reported(
    "bigcode-project/octopack#14",
    what="It was unclear how the parts of a Megatron checkpoint become one model.",
    versions="files only",
    result="Refused as Megatron's, with the tools that export it.",
)
def test_parts_of_megatron(tmp_path: Path):
    touch(tmp_path, "latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt")
    for folder in (tmp_path, tmp_path / "iter_0000100", tmp_path / "iter_0000100" / "mp_rank_00"):
        with pytest.raises(UnsupportedFormat, match=r"Megatron checkpoint.*(export_ckpt|convert\.py)"):
            checkpoint.open(folder)


@reported(
    "axolotl-ai-cloud/axolotl#1391",
    what="The output folder of a run had the adapter's configuration and its weights only in `checkpoint-2390`, and "
    "merging failed with a message about repository names.",
    versions="files only",
    result="Refused, naming the folders that hold adapters; with one of them the model is W + s B A.",
)
def test_the_folder_of_a_run(tmp_path: Path):
    weight = write_base(tmp_path / "base")
    saved = write_adapter(tmp_path / "run" / "checkpoint-2390", shapes=SHAPES)
    (tmp_path / "run" / "adapter_config.json").write_bytes((saved / "adapter_config.json").read_bytes())
    with pytest.raises(CheckpointError, match="There are adapters in checkpoint-2390: name one of them"):
        baked(tmp_path, "run")
    np.testing.assert_allclose(
        baked(tmp_path, "run/checkpoint-2390")["layer.weight"], weight + deltas(saved)["layer"], rtol=1e-5
    )


@reported(
    "tloen/alpaca-lora#334",
    what="The adapter's file held no tensors (443 bytes).",
    versions="torch 2.13.0",
    result="Refused, by `lora bake` and `lora merge`: the file holds no tensors.",
)
def test_an_empty_adapter(tmp_path: Path):
    write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", shapes=SHAPES)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model.bin holds no state dict: no mapping in it holds tensors"):
        baked(tmp_path)
    models = [{"path": "adapter", "name": name} for name in "ab"]
    with pytest.raises(CheckpointError, match=r"adapter_model.bin holds no state dict"):
        adapters.merge(recipe.read({"method": "linear", "models": models}, tmp_path), tmp_path / "out")


@reported(
    "ggml-org/llama.cpp#4896",
    what="Training left the factors in adapter_model.safetensors, and the whole model in adapter_model.bin.",
    versions="torch 2.13.0",
    result="The factors are read, as PEFT does: W + s B A.",
)
def test_a_whole_model_beside_the_factors(tmp_path: Path):
    weight = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", shapes=SHAPES)
    torch.save({"base_model.model.layer.base_layer.weight": torch.zeros(12, 8)}, adapter / "adapter_model.bin")
    np.testing.assert_allclose(baked(tmp_path)["layer.weight"], weight + deltas(adapter)["layer"], rtol=1e-5)


@reported(
    "Lightning-AI/litgpt#1878",
    what="The factors of litgpt are no PEFT adapter: names differ, and query, key and value are joined.",
    versions="torch 2.13.0",
    result="Refused as litgpt's, with its two commands, as a model and as an adapter.",
)
def test_factors_of_litgpt(tmp_path: Path):
    write_base(tmp_path / "base")
    names = [f"transformer.h.0.attn.qkv.lora_{factor}" for factor in "AB"]
    (tmp_path / "adapter").mkdir()
    file = tmp_path / "adapter" / "lit_model.pth.lora"
    torch.save({"model": {name: torch.ones(4, 4) for name in names}}, file.with_suffix(".pt"))
    models = [{"path": str(file.with_suffix(".pt")), "name": name} for name in "ab"]
    with pytest.raises(UnsupportedFormat, match=r"form of litgpt.*litgpt merge_lora"):
        api.merge(recipe.read({"method": "linear", "models": models}, tmp_path), tmp_path / "out")
    with pytest.raises(UnsupportedFormat, match=r"form of litgpt.*litgpt merge_lora"):
        adapters.bake(tmp_path / "base", file.with_suffix(".pt"), tmp_path / "out")


@reported(
    "ml-explore/mlx#743",
    what="transformers could not load files of MLX: their metadata lacks `format: pt`.",
    versions="safetensors 0.8.0",
    result="Such files are merged, and the result says `format: pt`; its numbers are the mean.",
)
def test_files_without_metadata(tmp_path: Path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    values = {name: np.random.default_rng(i).standard_normal((4, 4)).astype(np.float32) for i, name in enumerate("ab")}
    for name, value in values.items():
        (tmp_path / name).mkdir()
        save_file({"layer.weight": value}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    api.merge(recipe.read({"method": "linear", "models": ["./a", "./b"]}, tmp_path), tmp_path / "out")
    assert checkpoint.open(tmp_path / "out").metadata["format"] == "pt"
    np.testing.assert_allclose(tensors(tmp_path / "out")["layer.weight"], (values["a"] + values["b"]) / 2, rtol=1e-6)
