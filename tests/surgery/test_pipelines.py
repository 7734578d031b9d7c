"""Pipelines of several models: merged as a whole, or model by model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.inspection.verification import verify
from polyak.recipe import loads

from ..engine.conftest import write_model

UNET = {"_class_name": "UNet2DModel", "_diffusers_version": "0.30.0", "sample_size": 8}
RECIPE = "method: linear\nmodels: [./first/{0}, {{path: ./second/{0}, name: other}}]\n"


def write_pipeline(folder: Path, value: float) -> None:
    """A UNet as diffusers saves it, a text encoder as transformers does, and parts without weights."""
    tensors = {"down.0.weight": np.full((2, 3), value, np.float32), "up.0.weight": np.full((3, 2), value, np.float32)}
    write_model(folder / "unet", tensors, UNET)
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.safetensors")
    write_model(folder / "text_encoder", tensors, {"model_type": "clip_text_model"})
    for name in ("scheduler", "tokenizer"):
        (folder / name).mkdir()
        (folder / name / f"{name}_config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ADiffusionPipeline"}))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_pipeline(tmp_path / "first", 1)
    write_pipeline(tmp_path / "second", 3)
    return tmp_path


def refusal(text: str) -> str:
    with pytest.raises(errors.PolyakError) as caught:
        polyak.plan(loads(text))
    return str(caught.value)


WHOLE = "method: linear\nmodels: [./first, {path: ./second, weight: 3}]\n"


@pytest.mark.parametrize("shard_nbytes", [24, 1000])
def test_a_pipeline_is_merged_model_by_model_and_everything_else_comes_from_the_first(place, shard_nbytes):
    run(polyak.plan(loads(WHOLE)), "out", shard_nbytes=shard_nbytes)
    for name in ("unet", "text_encoder"):
        with polyak.open(Path("out", name)) as model:
            assert model.specs.keys() == {"down.0.weight", "up.0.weight"}
            assert model.read("down.0.weight").tolist() == [[2.5] * 3] * 2
    shards = ["-00001-of-00002.safetensors", "-00002-of-00002.safetensors", ".safetensors.index.json"]
    ends = shards if shard_nbytes == 24 else [".safetensors"]
    assert held("out/unet") == ["config.json", *(f"diffusion_pytorch_model{end}" for end in ends)]
    assert held("out/text_encoder") == ["config.json", *(f"model{end}" for end in ends)]
    assert held("out") == [
        "README.md", "model_index.json", "polyak.json", "recipe.yaml", "scheduler", "text_encoder", "tokenizer", "unet"
    ]  # fmt: skip
    assert json.loads(Path("out/unet/config.json").read_text()) == UNET
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        assert Path("out", name).read_bytes() == Path("first", name).read_bytes()


def held(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_what_was_merged_is_a_pipeline_that_can_be_verified_and_merged_again(place):
    run(polyak.plan(loads(WHOLE)), "out")
    checked = verify(Path("out"), inputs=True)
    assert (checked.tensors, checked.differing) == (4, ())
    assert checked.inputs == {"first": "unchanged", "second": "unchanged"}
    run(polyak.plan(loads("method: linear\nmodels: [./out, ./first]\n")), "again")
    nested = "method: linear\nmodels: [{name: out, recipe: {method: linear, models: [./first, {path: ./second, "
    run(polyak.plan(loads(nested + "weight: 3}]}}, ./first]\n")), "at-once")
    for folder in ("again", "at-once"):
        with polyak.open(folder) as model:
            assert model.read("unet/up.0.weight")[0, 0] == 1.75
    Path("out/unet/diffusion_pytorch_model.safetensors").write_bytes(
        Path("first/unet/diffusion_pytorch_model.safetensors").read_bytes()
    )
    assert verify(Path("out")).differing == ("unet/down.0.weight was changed", "unet/up.0.weight was changed")


def test_rules_go_by_the_folder_of_a_model_and_what_is_skipped_keeps_the_base(place):
    text = "base: ./first\nmodels: [./second]\nmethod: task_arithmetic\nskip: ^text_encoder/\ndtype: float16\n"
    run(polyak.plan(loads(f"{text}rules: [{{match: ^unet/up, settings: {{scale: 0.5}}}}]\n")), "out")
    with polyak.open("out") as model:
        assert [model.read(f"unet/{name}.0.weight")[0, 0] for name in ("down", "up")] == [3, 2]
        assert model.read("text_encoder/up.0.weight")[0, 0] == 1
    assert "dtype" not in json.loads(Path("out/unet/config.json").read_text())


def test_the_config_of_a_model_of_transformers_follows_its_dtype(place):
    run(polyak.plan(loads(f"{WHOLE}dtype: bfloat16\n")), "out")
    assert json.loads(Path("out/text_encoder/config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.slow
def test_a_killed_merge_of_pipelines_goes_on(place, monkeypatch):
    from polyak.engine.output.shards import ShardWriter

    run(polyak.plan(loads(WHOLE)), "whole")
    closing = ShardWriter.close

    def fail(self: ShardWriter) -> None:
        closing(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardWriter, "close", fail)
    with pytest.raises(KeyboardInterrupt):
        run(polyak.plan(loads(WHOLE)), "out", shard_nbytes=24)
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert not Path("out").exists()
    assert run(polyak.plan(loads(WHOLE)), "out", shard_nbytes=24, resume=True).resumed == 4
    assert verify(Path("out")).differing == ()


def test_pipelines_that_do_not_fit_together_are_refused_by_name(place):
    assert "no weights are left of text_encoder, which first needs" in refusal(f"{WHOLE}skip: ^text_enc")
    assert "text_encoder/down.0.weight" in refusal(WHOLE.replace("./second", "./second/unet"))
    shutil.rmtree("second/text_encoder")
    assert "text_encoder/down.0.weight" in refusal(WHOLE)


def test_a_quantised_model_of_a_pipeline_is_refused_by_its_folder(place):
    config = {"model_type": "clip_text_model", "quantization_config": {"quant_method": "bitsandbytes"}}
    Path("second/text_encoder/config.json").write_text(json.dumps(config))
    assert "second/text_encoder is a quantised model" in refusal(WHOLE)


def test_a_link_out_of_a_pipeline_is_refused(place):
    Path("secret").write_text("{}")
    Path("first/scheduler/scheduler_config.json").unlink()
    Path("first/scheduler/scheduler_config.json").symlink_to(Path("secret").absolute())
    assert "is a link out of the folder" in refusal(WHOLE)


def test_a_component_keeps_the_names_and_the_config_that_diffusers_reads(place):
    run(polyak.plan(loads(RECIPE.format("unet"))), "one")
    assert sorted(path.name for path in Path("one").glob("*.safetensors*")) == ["diffusion_pytorch_model.safetensors"]
    assert json.loads(Path("one/config.json").read_text()) == UNET
    run(polyak.plan(loads(RECIPE.format("unet"))), "two", shard_nbytes=24)
    assert sorted(path.name for path in Path("two").glob("*.safetensors*")) == [
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
    ]
    assert verify(Path("two"), inputs=True).inputs == {"unet": "unchanged", "other": "unchanged"}


def test_a_component_with_a_second_precision_beside_it_is_read_in_its_own(place):
    half = write_model(place / "half", {"down.0.weight": np.full((2, 3), 9, np.float16)}, UNET)
    (half / "model.safetensors").rename("first/unet/diffusion_pytorch_model.fp16.safetensors")
    with polyak.open("first/unet") as opened:
        assert opened.read("down.0.weight")[0, 0] == 1


def test_a_pipeline_without_weights_is_refused_as_such(place):
    for name in ("unet", "text_encoder"):
        shutil.rmtree(Path("first", name))
    assert "is a pipeline (model_index.json), and none of its folders holds weights" in refusal(WHOLE)
