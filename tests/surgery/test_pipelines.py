"""Pipelines of several models: refused with what to do, which then works."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.cli import app
from polyak.engine import run
from polyak.engine.verify import verify
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


def refusal(folder: str) -> str:
    with pytest.raises(errors.UnsupportedFormat) as caught:
        polyak.plan(loads(f"method: linear\nmodels: [./{folder}, ./second]\n"))
    return str(caught.value)


def test_a_pipeline_is_refused_with_a_command_for_each_model_and_the_commands_work(place):
    from typer.testing import CliRunner

    said = refusal("first")
    assert "is a pipeline of several models (model_index.json)" in said
    assert re.findall(r"polyak merge (\w+)\.yaml OUT/(\w+) --force", said) == [("text_encoder",) * 2, ("unet",) * 2]
    shutil.copytree("first", "OUT")
    for command in re.findall("polyak (.*--force)", said):
        arguments = command.split()
        component = Path(arguments[1]).stem
        Path(arguments[1]).write_text(RECIPE.format(component))
        assert CliRunner().invoke(app, arguments).exit_code == 0
        with polyak.open(Path("OUT", component)) as merged:
            assert merged.read("down.0.weight").tolist() == [[2, 2, 2]] * 2
    assert Path("OUT/text_encoder/model.safetensors").is_file()
    assert Path("OUT/scheduler/scheduler_config.json").is_file()


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
    assert "is a pipeline (model_index.json), and none of its folders holds weights" in refusal("first")
