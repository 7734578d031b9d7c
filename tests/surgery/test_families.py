"""Models of several families, as transformers saves them: what is merged of them loads again, key for key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import polyak
from polyak.engine import run
from polyak.recipe import loads

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
EYE = {**SMALL, "image_size": 8, "patch_size": 4}
PIXELS = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
IDS = torch.tensor([[3, 7, 5, 2]])


def clip(**vision: Any) -> Any:
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config={**EYE, **vision}, projection_dim=6)
    return transformers.CLIPModel(config)


def vit() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**EYE, num_labels=3))


def t5(**changes: Any) -> Any:
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 3, "vocab_size": 20}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**{**shape, **ids, **changes}))


def mixtral() -> Any:
    experts = {"num_local_experts": 3, "num_experts_per_tok": 2, "num_key_value_heads": 1}
    config = transformers.MixtralConfig(**SMALL, **experts, vocab_size=20, max_position_embeddings=16)
    return transformers.MixtralForCausalLM(config)


def write(folder: Path, **models: Any) -> None:
    """Save models after giving each one random numbers of its own, also where a library begins with constants."""
    for seed, (name, model) in enumerate(models.items()):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder / name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merged(text: str, kind: type, out: str = "out") -> Any:
    """The merge of a recipe, loaded; the library must find every tensor that it wants, and want every one it finds."""
    run(polyak.plan(loads(text)), out, workers=1)
    model, said = kind.from_pretrained(out, output_loading_info=True)
    assert {what: sorted(names) for what, names in said.items() if names} == {}
    return model.eval()


def stored(folder: str) -> dict[str, Any]:
    with polyak.open(folder) as model:
        return {name: torch.from_numpy(model.read(name)) for name in model.specs}


def config(out: str = "out") -> dict[str, Any]:
    return json.loads(Path(out, "config.json").read_text())


LINEAR = "method: linear\nmodels: [./a, ./b]\n"
TOWER = """
method: passthrough
base: ./a
modules:
  - match: ^vision_model\\.|^visual_projection\\.
    models: [./b]
  - match: .*
    models: [./a]
"""


def test_a_vision_tower_moves_from_one_clip_into_another(place):
    write(place, a=clip(), b=clip())
    found = merged(TOWER, transformers.CLIPModel)
    a, b = (transformers.CLIPModel.from_pretrained(name).eval() for name in "ab")
    with torch.no_grad():
        wanted = b.get_image_features(PIXELS), a.get_text_features(IDS)
        torch.testing.assert_close((found.get_image_features(PIXELS), found.get_text_features(IDS)), wanted)


OTHER_TOWER = """
method: passthrough
modules:
  - match: ^text_|^logit_scale
    models: [./a]
  - match: ^visual_projection
    models: [./b]
  - match: .*
    models: [./tower]
"""


def test_a_vision_tower_of_another_width_brings_its_part_of_the_config(place):
    write(place, a=clip(), b=clip(hidden_size=32, intermediate_size=40, num_hidden_layers=3))
    text = OTHER_TOWER.replace("./tower", "./b")
    assert any("has the vision_config of b" in note for note in polyak.plan(loads(text)).notes)
    found = merged(text, transformers.CLIPModel)
    b = transformers.CLIPModel.from_pretrained("b").eval()
    with torch.no_grad():
        torch.testing.assert_close(found.get_image_features(PIXELS), b.get_image_features(PIXELS))
    sizes = {key: config()[key]["hidden_size"] for key in ("text_config", "vision_config")}
    depths = {key: config()[key]["num_hidden_layers"] for key in sizes}
    assert (sizes, depths) == ({"text_config": 16, "vision_config": 32}, {"text_config": 2, "vision_config": 3})
    fewer = text.replace("./b]\n", "{path: ./b, layers: [1, 3], stack: vision_model.encoder.layers}]\n")
    fewer = fewer.replace(fewer[fewer.index("{path") : fewer.index("}]") + 1], "./b", 1)  # not of the projection
    assert len(merged(fewer, transformers.CLIPModel, "fewer").vision_model.encoder.layers) == 2
    assert config("fewer")["vision_config"] | {"num_hidden_layers": 3} == config()["vision_config"]


def test_a_tower_that_is_a_model_by_itself_brings_its_whole_config(place):
    tower = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**{**EYE, "hidden_size": 32}))
    write(place, a=clip(), b=clip(hidden_size=32), tower=tower)
    prefixes = {name.startswith("vision_model.") for name in stored("tower")}  # that depends on transformers' version
    prefixed = "./tower" if prefixes == {True} else "{path: ./tower, add_prefix: vision_model.}"
    found = merged(OTHER_TOWER.replace("./tower", prefixed), transformers.CLIPModel)
    assert found.config.vision_config.hidden_size == 32
    for name, tensor in stored("tower").items():
        torch.testing.assert_close(found.state_dict()[f"vision_model.{name.removeprefix('vision_model.')}"], tensor)


def test_a_module_of_another_width_that_no_part_of_the_config_speaks_of_is_told(place):
    write(place, a=vit(), b=transformers.ViTForImageClassification(transformers.ViTConfig(**EYE, num_labels=5)))
    text = "method: passthrough\nmodules: [{match: ^vit, models: [./a]}, {match: .*, models: [./b]}]\n"
    notes = polyak.plan(loads(text)).notes
    assert any("config.json is that of a, but 2 tensors have the shapes of b" in note for note in notes)


@pytest.mark.parametrize("said", ["", ", layers: [0, 3], stack: vision_model.encoder.layers"])
def test_a_vision_tower_of_another_depth_brings_its_number_of_layers(place, said):
    write(place, a=clip(), b=clip(num_hidden_layers=3))
    text = f"""
method: passthrough
modules:
  - match: ^text_|^logit_scale
    models: [./a]
  - match: .*
    models: [{{path: ./b{said}}}]
"""
    found = merged(text, transformers.CLIPModel)
    depths = [config()[part]["num_hidden_layers"] for part in ("text_config", "vision_config")]
    assert depths == [2, 3] == [len(part.encoder.layers) for part in (found.text_model, found.vision_model)]


def test_the_mean_of_two_image_classifiers_is_the_mean_of_every_tensor(place):
    write(place, a=vit(), b=vit())
    found = merged(LINEAR, transformers.ViTForImageClassification)
    a, b, out = stored("a"), stored("b"), stored("out")
    torch.testing.assert_close(out, {name: (a[name] + b[name]) / 2 for name in a})
    assert found(PIXELS).logits.isfinite().all()


def test_an_encoder_and_a_decoder_are_merged_together(place):
    write(place, a=t5(), b=t5())
    found = merged(LINEAR, transformers.T5ForConditionalGeneration)
    assert found.encoder.embed_tokens.weight is found.decoder.embed_tokens.weight
    torch.testing.assert_close(found.shared.weight, (stored("a")["shared.weight"] + stored("b")["shared.weight"]) / 2)
    assert found(input_ids=IDS, decoder_input_ids=IDS).logits.isfinite().all()


def test_slices_of_an_encoder_keep_the_position_biases_in_its_first_layer(place):
    write(place, a=t5(), b=t5())
    text = """
method: passthrough
base: ./a
modules:
  - match: ^encoder\\.
    slices:
      - models: [{path: ./b, layers: [1, 3]}]
      - models: [{path: ./a, layers: [0, 3]}]
  - match: ^decoder\\.
    slices:
      - models: [{path: ./a, layers: [2, 3]}]
  - match: .*
    models: [./a]
"""
    found = merged(text, transformers.T5ForConditionalGeneration)
    assert (config()["num_layers"], config()["num_decoder_layers"]) == (5, 1)
    bias, query = "layer.0.SelfAttention.relative_attention_bias.weight", "layer.0.SelfAttention.q.weight"
    a, b, out = stored("a"), stored("b"), stored("out")
    assert [name for name in out if name.endswith("relative_attention_bias.weight")] == [
        f"decoder.block.0.{bias}",
        f"encoder.block.0.{bias}",
    ]
    torch.testing.assert_close(out[f"encoder.block.0.{bias}"], b[f"encoder.block.0.{bias}"])
    torch.testing.assert_close(out[f"encoder.block.0.{query}"], b[f"encoder.block.1.{query}"])
    torch.testing.assert_close(out[f"encoder.block.2.{query}"], a[f"encoder.block.0.{query}"])
    torch.testing.assert_close(out[f"decoder.block.0.{query}"], a[f"decoder.block.2.{query}"])
    assert found(input_ids=IDS, decoder_input_ids=IDS).logits.isfinite().all()


def test_experts_that_are_stored_one_by_one_are_merged_and_stacked(place):
    write(place, base=mixtral(), a=mixtral(), b=mixtral())
    assert any(".experts.2.w1.weight" in name for name in stored("a"))
    text = LINEAR.replace("linear", "ties") + "base: ./base\nsettings: {density: 0.5}\n"
    assert merged(text, transformers.MixtralForCausalLM)(IDS).logits.isfinite().all()
    assert stored("out").keys() == stored("a").keys()
    slices = "slices: [{models: [{path: ./a, layers: [0, 2]}]}, {models: [{path: ./b, layers: [1, 2]}]}]"
    found = merged(f"method: passthrough\n{slices}\n", transformers.MixtralForCausalLM, "tall")
    assert (config("tall")["num_hidden_layers"], len(found.model.layers)) == (3, 3)
    assert found(IDS).logits.isfinite().all()
