"""The recipes among the examples are read, fit the schema and say what their tensors need."""

from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

import polyak
from polyak.recipe import Recipe, Source, dump, load, loads, schema

FILES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.yaml"))
NAMES = [file.stem for file in FILES]


def test_there_are_example_recipes() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_example_fits_the_schema(file: Path) -> None:
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_example_is_read_and_written_alike(file: Path) -> None:
    recipe = load(file)
    assert loads(dump(recipe), recipe.folder) == recipe


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_example_begins_by_saying_what_it_does(file: Path) -> None:
    assert file.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_example_merges_small_models(file: Path, tmp_path: Path) -> None:
    for one in FILES:
        (tmp_path / one.name).write_bytes(one.read_bytes())
    for i, source in enumerate(_sources(load(file))):
        assert source.path is not None
        _write_model(tmp_path / source.path, seed=i)
        for lora in source.lora:
            _write_adapter(tmp_path / lora.path, seed=i)
    polyak.merge(tmp_path / file.name, tmp_path / "out")
    with polyak.open(tmp_path / "out") as merged:
        assert set(merged.specs) == set(_tensors(seed=0))


def _sources(recipe: Recipe) -> Iterator[Source]:
    for source in (*([recipe.base] if recipe.base else []), *(model.source for model in recipe.models)):
        if source.recipe is None:
            yield source
        else:
            yield from _sources(source.recipe)


def _tensors(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed).normal
    layers = [f"model.layers.{i}.{part}.weight" for i in range(3) for part in ("self_attn.q_proj", "mlp.up_proj")]
    names = ["model.embed_tokens.weight", *layers, "lm_head.weight"]
    return {name: draw(size=(6, 6)).astype(np.float32) for name in names}


def _write_model(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    save_file(_tensors(seed), folder / "model.safetensors")


def _write_adapter(folder: Path, seed: int) -> None:
    draw = np.random.default_rng(seed).normal
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {"A": (2, 6), "B": (6, 2)}
    folder.mkdir(exist_ok=True)
    save_file(
        {f"{at}.lora_{side}.weight": draw(size=shape).astype(np.float32) for side, shape in pair.items()},
        folder / "adapter_model.safetensors",
    )
    config = '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}'
    (folder / "adapter_config.json").write_text(config, encoding="utf-8")
