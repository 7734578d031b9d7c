"""Factors of any library, codes of any quantiser, and folders of training frameworks are refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import adapters, checkpoint, planning, recipe
from polyak.checkpoint import with_lora
from polyak.errors import CheckpointError, UnsupportedFormat

save = pytest.importorskip("safetensors.numpy").save_file

FACTORS = {
    "kohya": ("lora_unet_down_blocks_0_attn1_to_q.lora_down.weight", "lora_te1_x.alpha"),
    "LyCORIS": ("lycoris_blocks_0_to_q.lokr_w1", "lora_unet_mid_block_to_k.hada_w1_a"),
    "diffusers": (
        "unet.down_blocks.0.attn1.to_q.lora_A.weight", "transformer.blocks.0.to_q.lora_B.weight",
        "unet.up_blocks.1.attn1.to_k.lora.down.weight", "text_encoder.layers.0.q_proj.lora_linear_layer.up.weight",
    ),
    "MLX": ("model.layers.0.self_attn.q_proj.lora_a",),
    "torchtune": ("layers.0.attn.q_proj.lora_b.weight",),
    "NeMo": ("decoder.layers.0.self_attention.linear_qkv.adapter.linear_in.weight",),
    "PEFT": (
        "base_model.model.q_proj.lora_A.weight", "model.layers.0.q_proj.lora_B.default.weight",
        "base_model.model.embed_tokens.lora_embedding_A", "base_model.model.k_proj.ia3_l",
    ),
}  # fmt: skip
FORMS = [(form, name) for form, names in FACTORS.items() for name in names]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_factors_are_no_model(tmp_path: Path, form: str, name: str):
    for model in "ab":
        save({name: np.ones((4, 6), np.float32)}, tmp_path / f"{model}.safetensors")
    models = [{"path": f"{model}.safetensors", "name": model} for model in "ab"]
    with pytest.raises(UnsupportedFormat, match=form) as caught:
        planning.plan(recipe.read({"method": "linear", "models": models}, tmp_path))
    assert "LoRA" in str(caught.value)


@pytest.mark.parametrize(("form", "name"), [pair for pair in FORMS if pair[0] != "PEFT"])
@pytest.mark.parametrize("as_file", [True, False])
def test_adapters_of_other_libraries_are_named(tmp_path: Path, form: str, name: str, as_file: bool):
    path = tmp_path / "x.safetensors"
    save({name: np.ones((4, 6), np.float32)}, path)
    base = checkpoint.open({"layer.weight": np.ones((6, 4), np.float32)})
    with pytest.raises(UnsupportedFormat, match=form):
        with_lora(base, path if as_file else tmp_path)


def test_an_adapter_of_mlx_is_known_by_its_configuration(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "dora", "num_layers": 1}))
    with pytest.raises(UnsupportedFormat, match="mlx_lm fuse"):
        with_lora(checkpoint.open({"a": np.ones(1, np.float32)}), tmp_path)
    with pytest.raises(UnsupportedFormat, match="mlx_lm fuse"):
        checkpoint.open(tmp_path)


def test_the_file_of_a_peft_adapter_is_refused_with_the_folder_as_remedy(tmp_path: Path):
    path = tmp_path / "adapter_model.safetensors"
    save({"base_model.model.a.lora_A.weight": np.ones((1, 1), np.float32)}, path)
    with pytest.raises(CheckpointError, match="name the folder"):
        with_lora(checkpoint.open({"a.weight": np.ones((1, 1), np.float32)}), path)


@pytest.mark.parametrize("name", ["attn.w_lora.lora.0.weight", "q_a_proj.weight", "adapter.0.weight", "color.weight"])
def test_weights_whose_names_resemble_factors_are_weights(name: str):
    opened = checkpoint.open({name: np.ones((2, 2), np.float32)})
    assert checkpoint.refuse_factors(opened) is opened


CODES: dict[str, dict[str, Any]] = {
    "MLX": {"q.weight": ((4, 2), np.uint32), "q.scales": ((4, 1), np.float16), "q.biases": ((4, 1), np.float16)},
    "GPTQ": {"q.qweight": ((2, 4), np.int32), "q.qzeros": ((1, 1), np.int32), "q.g_idx": ((4,), np.int32)},
    "AWQ": {"q.qweight": ((2, 4), np.int32), "q.qzeros": ((1, 1), np.int32), "q.scales": ((1, 4), np.float16)},
    "bitsandbytes": {"q.weight": ((8, 1), np.uint8), "q.weight.absmax": ((1,), np.uint8)},
    "EXL2": {"q.q_weight": ((8, 1), np.int32), "q.q_groups": ((2,), np.int16)},
    "EXL3": {"q.trellis": ((8, 1), np.int16), "q.suh": ((2,), np.float16)},
    "compressed-tensors": {"q.weight_packed": ((8, 1), np.int32), "q.weight_scale": ((8, 1), np.float16)},
    "block fp8": {"q.weight": ((8, 1), np.uint8), "q.weight_scale_inv": ((1, 1), np.float32)},
    "torchao": {"q._weight_qdata": ((8, 2), np.int8), "q._weight_scale": ((8, 2), np.float32)},
    "quanto": {"q.weight._data": ((8, 1), np.int8), "q.weight._scale": ((8, 1), np.float32)},
    "HQQ": {"q.W_q": ((8, 1), np.uint8), "q.scale": ((8, 1), np.float16)},
    "AQLM": {"q.codes": ((8, 1, 1), np.int8), "q.codebooks": ((1, 2, 1, 8), np.float16)},
    "VPTQ": {"q.indices": ((1, 8), np.int16), "q.centroids": ((1, 8), np.float16)},
    "MXFP4": {"mlp.experts.down_proj_blocks": ((8, 1), np.uint8), "mlp.experts.down_proj_scales": ((8,), np.uint8)},
    "an unknown quantiser": {"q.weight": ((8, 2), np.int8), "q.weight_scales": ((8,), np.float32)},
}


@pytest.mark.parametrize("maker", CODES)
def test_codes_are_refused_by_maker_also_without_a_config(tmp_path: Path, maker: str):
    save({name: np.ones(shape, dtype) for name, (shape, dtype) in CODES[maker].items()}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedFormat, match=f"quantised model, by .*{maker}"):
        checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("config", "maker"),
    [
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"quantization_config": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"quantization_config": {"quant_method": "fp8"}}, "block fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "new"}}, "an unknown quantiser"),
    ],
)
def test_a_config_names_the_maker(tmp_path: Path, config: dict[str, Any], maker: str):
    save({"a.weight": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedFormat, match=f"by {maker}"):
        checkpoint.open(tmp_path)


def test_integers_and_scales_that_belong_to_no_quantiser_are_read(tmp_path: Path):
    tensors = {
        "bins.weight": np.ones((2, 2), np.int32), "logit_scale": np.ones(1, np.float32),
        "quantizer.codebooks": np.ones((2, 2), np.float32), "norm.scale": np.ones(2, np.float32),
        "attention.biases": np.ones(2, np.float32), "relative.weight": np.ones((2, 2), np.float32),
    }  # fmt: skip
    save(tensors, tmp_path / "model.safetensors")
    assert set(checkpoint.open(tmp_path).specs) == set(tensors)


FOLDERS = {
    "zero_to_fp32.py": "zero_to_fp32",
    "global_step100/mp_rank_00_model_states.pt": "zero_to_fp32",
    "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": "zero_to_fp32",
    "pytorch_model_fsdp_0/.metadata": "accelerate merge-weights",
    "__0_0.distcp": "dcp_to_torch",
    "model_world_size_2_rank_0.pt": "verl.model_merger",
    "actor/fsdp_config.json": "verl.model_merger",
    "latest_checkpointed_iteration.txt": "Megatron",
    "iter_0000100/mp_rank_00/model_optim_rng.pt": "Megatron",
    "model.nemo": "NeMo",
    "optimizer.pt": "optimizer",
    "ema_model.safetensors": "EMA",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_training_frameworks_are_named_with_what_converts_them(tmp_path: Path, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).touch()
    with pytest.raises(UnsupportedFormat, match=FOLDERS[name]):
        checkpoint.open(tmp_path)


@pytest.mark.parametrize("beside", ["optimizer.pt", "training_args.bin", "ema.pt", "scheduler.pt"])
def test_a_model_beside_the_state_of_its_training_is_read(tmp_path: Path, beside: str):
    save({"a.weight": np.ones((2, 2), np.float32)}, tmp_path / "weights.safetensors")
    (tmp_path / beside).touch()
    assert set(checkpoint.open(tmp_path).specs) == {"a.weight"}


@pytest.mark.parametrize("factors", [{"lora_A": (0,), "lora_B": (0,)}, {"lora_A": (4, 0), "lora_B": (0, 4)}])
def test_empty_factors_are_called_empty(tmp_path: Path, factors: dict[str, tuple[int, ...]]):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    tensors = {f"base_model.model.a.{role}.weight": np.ones(shape, np.float32) for role, shape in factors.items()}
    save(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"empty.*ZeRO-3"):
        with_lora(checkpoint.open({"a.weight": np.ones((8, 8), np.float32)}), tmp_path)
    models = [{"path": str(tmp_path), "name": name} for name in "ab"]
    with pytest.raises(CheckpointError, match=r"empty.*ZeRO-3"):
        adapters.merge(recipe.read({"method": "task_arithmetic", "models": models}, tmp_path), tmp_path / "out")


def test_a_merge_of_factors_ends_in_one_line(tmp_path: Path):
    for model in "ab":
        save({"lora_unet_x.lora_down.weight": np.ones((4, 6), np.float32)}, tmp_path / f"{model}.safetensors")
    (tmp_path / "recipe.yaml").write_text("{method: linear, models: [{path: a.safetensors}, {path: b.safetensors}]}")
    command = [sys.executable, "-m", "polyak", "merge", "recipe.yaml", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done
    assert "kohya" in done.stderr
    assert "fuse_lora" in done.stderr
    assert "Traceback" not in done.stderr
