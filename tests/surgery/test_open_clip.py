"""Models of open_clip: weights of two towers in one file with a name of its own, in two formats beside each other.

open_clip needs torchvision, which has no build for every torch. Where it is missing, the folder is written with the
names and shapes that open_clip's `save_for_hf` writes, and read by the rule of its `local-dir:` models:
`open_clip_model.safetensors` before any other file, every name in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

from .encoders import RECIPE, WORDS, assert_mean, averaged, write_tokenizer  # noqa: E402

WIDTH, PATCHES, CONTEXT, TEXT = 16, 4, 8, "w1 w2"
MODEL: dict[str, Any] = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": WIDTH, "head_width": 8, "patch_size": 8},
    "text_cfg": {
        "context_length": CONTEXT, "vocab_size": len(WORDS), "width": WIDTH, "heads": 2, "layers": 1,
        "hf_tokenizer_name": "small/words",
    },
}  # fmt: skip
CONFIG = {"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for seed, name in enumerate("ab"):
        write_model(tmp_path / name, tensors(seed))
    return tmp_path


def write_model(folder: Path, weights: dict[str, Any]) -> None:
    """As `save_for_hf` does, with its default `safe_serialization="both"`."""
    folder.mkdir()
    safetensors.save_file(weights, folder / "open_clip_model.safetensors")
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    write_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2))


def tensors(seed: int) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(seed)
    shapes = {
        "logit_scale": (), "positional_embedding": (CONTEXT, WIDTH), "text_projection": (WIDTH, WIDTH),
        "visual.class_embedding": (WIDTH,), "visual.positional_embedding": (PATCHES + 1, WIDTH),
        "visual.proj": (WIDTH, WIDTH), "visual.conv1.weight": (WIDTH, 3, 8, 8),
        "token_embedding.weight": (len(WORDS), WIDTH),
        **norms("visual.ln_pre"), **norms("visual.ln_post"), **norms("ln_final"),
        **block("visual.transformer.resblocks.0"), **block("transformer.resblocks.0"),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=drawn) / 4 for name, shape in shapes.items()}


def block(prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{prefix}.attn.in_proj_bias": (3 * WIDTH,),
        **linear(f"{prefix}.attn.out_proj", WIDTH, WIDTH), **norms(f"{prefix}.ln_1"), **norms(f"{prefix}.ln_2"),
        **linear(f"{prefix}.mlp.c_fc", WIDTH, 4 * WIDTH), **linear(f"{prefix}.mlp.c_proj", 4 * WIDTH, WIDTH),
    }  # fmt: skip


def linear(name: str, width: int, out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def norms(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def test_a_merge_is_the_file_that_open_clip_reads(place, polyak):
    polyak("merge", "recipe.yaml", "out", "--quiet")
    merged = safetensors.load_file("out/open_clip_model.safetensors")
    assert_mean(merged, tensors(0), tensors(1))
    assert json.loads(Path("out/open_clip_config.json").read_text()) == CONFIG
    files = {path.name for path in Path("a").iterdir()} - {"open_clip_pytorch_model.bin"}
    assert {path.name for path in Path("out").iterdir()} == files | {"README.md", "polyak.json", "recipe.yaml"}
    assert "open_clip_pytorch_model.bin (weights that are not merged)" in polyak("plan", "recipe.yaml")
    assert "library_name: open_clip" in Path("out/README.md").read_text()


def test_beside_weights_of_transformers_those_of_open_clip_are_listed(place, polyak):
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = transformers.CLIPTextConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=CONTEXT)
    vision = transformers.CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
        transformers.CLIPModel(config).save_pretrained(place / name)
    polyak("merge", "recipe.yaml", "out", "--quiet")
    a, b, merged = (transformers.CLIPModel.from_pretrained(name).state_dict() for name in ("a", "b", "out"))
    assert_mean(merged, a, b)
    listed = "open_clip_model.safetensors, open_clip_pytorch_model.bin (weights that are not merged)"
    assert listed in polyak("plan", "recipe.yaml")
    assert "library_name: transformers" in Path("out/README.md").read_text()


@pytest.mark.filterwarnings("ignore:.*QuickGELU:UserWarning")
def test_open_clip_loads_a_merge_of_its_models(place, polyak):
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    polyak("merge", "recipe.yaml", "out", "--quiet")
    (a, _), (b, _), (merged, prepare) = map(open_clip.create_model_from_pretrained, locations())
    assert merged.state_dict().keys() == tensors(0).keys()
    assert_mean(merged.state_dict(), a.state_dict(), b.state_dict())
    tokens = open_clip.get_tokenizer("local-dir:out", context_length=CONTEXT)([TEXT])
    assert list(prepare.transforms[-1].mean) == [0.5, 0.5, 0.5]
    image, expected = torch.ones(1, 3, 16, 16), averaged(a, b)
    torch.testing.assert_close(merged.encode_text(tokens), expected.encode_text(tokens))
    torch.testing.assert_close(merged.encode_image(image), expected.encode_image(image))


def locations() -> list[str]:
    return [f"local-dir:{name}" for name in ("a", "b", "out")]
