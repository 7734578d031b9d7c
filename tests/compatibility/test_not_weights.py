"""Public reports of files that are no weights to average: quantised codes, optimizer states and averaged copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from polyak import errors

from .reported import reported
from .small_models import assert_same, llama, merged, refused, write

OWN = "method: linear\nmodels: [./a, ./b]\n"
LAYER = "model.layers.0.self_attn.q_proj."


def write_both(folder: Path, tensors: dict[str, np.ndarray], **config: object) -> None:
    """Two models with the given tensors in their first layer."""
    for name in "ab":
        write(folder / name, llama(0, 1) | {f"{LAYER}{leaf}": values for leaf, values in tensors.items()}, **config)


@reported(
    "arcee-ai/mergekit#75",
    what="Can GPTQ models be merged, or GGUF files, which have no config?",
    versions="files only",
    result="Both are refused by the name of their format, with the way out: merge the original models, or convert.",
)
def test_gptq_and_gguf(tmp_path):
    codes = {"qweight": np.ones((4, 4), np.int32), "qzeros": np.ones((1, 1), np.int32), "g_idx": np.zeros(4, np.int32)}
    write_both(tmp_path, codes | {"scales": np.ones((1, 4), np.float16)})
    refused(tmp_path, OWN, "GPTQ", "merge the models from which it was made", kind=errors.UnsupportedFormat)
    for name in "ab":
        shutil.rmtree(tmp_path / name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "model-Q4_K_M.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    refused(tmp_path, OWN, "a GGUF model", "Convert it to safetensors", kind=errors.UnsupportedFormat)


@reported(
    "modelscope/ms-swift#780",
    what="A fine-tune of an AWQ model cannot be merged.",
    versions="files only",
    result="Refused at planning time as quantised by AWQ, by the config and by the tensors alone.",
)
@pytest.mark.parametrize("config", [{}, {"quantization_config": {"quant_method": "awq", "bits": 4}}])
def test_awq(tmp_path, config):
    codes = {"qweight": np.ones((4, 4), np.int32), "qzeros": np.ones((1, 1), np.int32)}
    write_both(tmp_path, codes | {"scales": np.ones((1, 4), np.float16)}, **config)
    refused(tmp_path, OWN, "quantised", "AWQ", kind=errors.UnsupportedFormat)


@reported(
    "haotian-liu/LLaVA#1266",
    what="Merging into a base that was loaded in 4 bits fails: the state dict lacks the quant_state of bitsandbytes.",
    versions="files only",
    result="Refused by name, with the call of transformers that dequantises the model.",
)
def test_codes_of_bitsandbytes(tmp_path):
    codes = {"weight": np.ones((8, 1), np.uint8), "weight.absmax": np.ones(1, np.float32)}
    write_both(tmp_path, codes | {"weight.quant_state.bitsandbytes__nf4": np.ones(60, np.uint8)})
    refused(tmp_path, OWN, "bitsandbytes", ".dequantize()", kind=errors.UnsupportedFormat)


@reported(
    "unslothai/unsloth-zoo#803",
    what="FP8 weights with block scales must be multiplied by them before anything is merged.",
    versions="files only",
    result="Refused as block fp8 by the scales next to the weights, with the config that dequantises them; float8 "
    "weights without scales are numbers and are averaged.",
)
def test_float8_with_and_without_scales(tmp_path):
    weight = (np.arange(16).reshape(4, 4) / 8).astype(ml_dtypes.float8_e4m3fn)
    write_both(tmp_path, {"weight": weight, "weight_scale_inv": np.ones((1, 1), np.float32)})
    refused(tmp_path, OWN, "block fp8", "dequantize=True", kind=errors.UnsupportedFormat)
    write_both(tmp_path, {"weight": weight})
    found = merged(tmp_path, OWN)[f"{LAYER}weight"]
    np.testing.assert_array_equal(found.astype(np.float32), weight.astype(np.float32))


@reported(
    "artidoro/qlora#28",
    what="A run left an adapter of 400 bytes, and an optimizer's file of a gigabyte that is no model either.",
    versions="torch 2.13.0",
    result="The state dict of an optimizer is refused by name, alone or next to counters, with the remedy to name "
    "the model's file.",
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_state_of_an_optimizer(tmp_path, nested):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    for name in "ab":
        torch.save({"optimizer": state, "step": 1} if nested else state, tmp_path / f"{name}.pt")
    text = OWN.replace("./a", "./a.pt").replace("./b", "./b.pt")
    refused(tmp_path, text, "state of an optimizer", "Name the file of the model", kind=errors.UnsupportedFormat)


@reported(
    "PaddlePaddle/PaddleNLP#7373",
    what="Unified checkpoints keep shards of the optimizer and of master weights next to the model's.",
    versions="files only",
    result="Next to a model they are ignored and not copied; alone they are refused as the state of an optimizer.",
)
def test_shards_of_an_optimizer(tmp_path):
    a, b = (write(tmp_path / name, llama(seed)) for seed, name in enumerate("ab"))
    for name in "ab":
        for stem in ("optimizer", "master_weights"):
            for part in (1, 2):
                file = f"{stem}-0000{part}-of-00002.safetensors"
                shutil.copy(tmp_path / name / "model.safetensors", tmp_path / name / file)
    assert_same(merged(tmp_path, OWN), {name: (values + b[name]) / 2 for name, values in a.items()})
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(("optimizer", "master"))]
    (tmp_path / "a" / "model.safetensors").unlink()
    refused(tmp_path, OWN, "the state of an optimizer", kind=errors.UnsupportedFormat)


@reported(
    "ogkalu2/Merge-Stable-Diffusion-models-without-distortion#19",
    what="One Stable Diffusion checkpoint has EMA copies of its weights and the other has none: KeyError model_ema...",
    versions="files only",
    result="Refused with the names and `skip:`; with it, the weights are averaged and the copies are left out.",
)
def test_copies_in_one_model(tmp_path):
    name, copy = "model.diffusion_model.time_embed.0.weight", "model_ema.diffusion_modeltime_embed0weight"
    a, b = (np.full((4, 4), value, np.float32) for value in (1, 4))
    write(tmp_path / "a", {name: a, copy: a + 1, "model_ema.decay": np.full((), 0.99, np.float32)})
    write(tmp_path / "b", {name: b})
    refused(tmp_path, OWN, f"{copy!r} is not in b", "`skip: REGEX`", kind=errors.Mismatch)
    assert_same(merged(tmp_path, f"{OWN}skip: ^model_ema\n"), {name: (a + b) / 2})


@reported(
    "ogkalu2/Merge-Stable-Diffusion-models-without-distortion#31",
    what="Some checkpoints have their weights below `state_dict` and others at the top, and a merge expects the "
    "former.",
    versions="torch 2.13.0",
    result="Both are found, whatever lies next to them.",
)
def test_with_and_without_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    a, b = llama(0), llama(1)
    tensors = [{name: torch.from_numpy(values) for name, values in model.items()} for model in (a, b)]
    torch.save({"state_dict": tensors[0], "global_step": 470000, "epoch": 3}, tmp_path / "a.ckpt")
    torch.save(tensors[1], tmp_path / "b.ckpt")
    found = merged(tmp_path, OWN.replace("./a", "./a.ckpt").replace("./b", "./b.ckpt"))
    assert_same(found, {name: (values + b[name]) / 2 for name, values in a.items()})
