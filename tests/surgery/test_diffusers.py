"""Pipelines that diffusers itself saves: merged from a shell, loaded by diffusers again, and run for a step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers", reason="diffusers is not installed")

PARTS = ("text_encoder", "unet", "vae")
RECIPE = {"method": "linear", "models": ["./first", {"path": "./second", "weight": 3}]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small pipelines that differ in every weight."""
    folder = tmp_path_factory.mktemp("pipelines")
    for seed, name in enumerate(("first", "second")):
        tiny_pipeline(folder / "vocabulary", seed).save_pretrained(folder / name)
    return folder


@pytest.fixture
def place(saved: Path, tmp_path: Path) -> Path:
    for name in ("first", "second"):
        shutil.copytree(saved / name, tmp_path / name)
    return tmp_path


def tiny_pipeline(vocabulary: Path, seed: int) -> Any:
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    return diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            **blocks,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text, **ends, vocab_size=4, max_position_embeddings=8)),
        tokenizer=tokenizer(vocabulary),
        unet=diffusers.UNet2DConditionModel(
            **blocks,
            sample_size=8,
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokenizer(folder: Path) -> Any:
    """CLIP's, of two words."""
    from transformers import CLIPTokenizer

    folder.mkdir(exist_ok=True)
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=8)


def merge(place: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """`polyak merge`, as a user runs it."""
    (place / "recipe.yaml").write_text(json.dumps(RECIPE | changes))
    command = [sys.executable, "-m", "polyak", "merge", "recipe.yaml", "out", "--quiet"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_a_merge_of_pipelines_is_a_pipeline_that_runs(place):
    import diffusers

    done = merge(place)
    assert (done.returncode, done.stderr) == (0, "")
    merged = diffusers.DiffusionPipeline.from_pretrained(place / "out")
    assert type(merged) is diffusers.StableDiffusionPipeline
    sources = [diffusers.DiffusionPipeline.from_pretrained(place / name) for name in ("first", "second")]
    for part in PARTS:
        found, one, other = (getattr(each, part).state_dict() for each in (merged, *sources))
        assert found.keys() == one.keys()
        for name, tensor in found.items():
            wanted = (one[name] + 3 * other[name]) / 4 if tensor.is_floating_point() else one[name]
            torch.testing.assert_close(tensor, wanted)
    image = merged("a b", num_inference_steps=1, height=16, width=16, output_type="np").images
    assert image.shape == (1, 16, 16, 3)
    assert np.isfinite(image).all()


def test_one_part_of_a_pipeline_is_merged_alone(place):
    import diffusers

    done = merge(place, models=["./first/unet", {"path": "./second/unet", "name": "other"}])
    assert (done.returncode, done.stderr) == (0, "")
    assert diffusers.UNet2DConditionModel.from_pretrained(place / "out").config.sample_size == 8


def without(path: str) -> Any:
    def change(second: Path) -> None:
        found = second / path
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return change


def cut_short(second: Path) -> None:
    file = second / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def other_widths(second: Path) -> None:
    import diffusers

    blocks = {"block_out_channels": (4, 8), "norm_num_groups": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    diffusers.AutoencoderKL(**blocks, **kinds).save_pretrained(second / "vae")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(without("vae"), ["vae/", "second"], id="a part is missing"),
        pytest.param(without("model_index.json"), ["model_index.json", "second"], id="the index is missing"),
        pytest.param(
            without("unet/diffusion_pytorch_model.safetensors"), ["unet/", "second"], id="weights are missing"
        ),
        pytest.param(cut_short, ["diffusion_pytorch_model.safetensors"], id="a file is cut short"),
        pytest.param(other_widths, ["vae/", "second"], id="a part has other widths"),
    ],
)
def test_pipelines_that_do_not_fit_are_refused_by_name(place, change, said):
    change(place / "second")
    done = merge(place)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert [one for one in said if one not in done.stderr] == [], done.stderr
    assert not (place / "out").exists()
