"""Layers of several models on one another: what stands where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.inspection.verification import verify
from polyak.recipe import dump, loads

from ..engine.conftest import write_model
from .stacks import CONFIG, HIDDEN, tensors, write_stacks

FRANKEN = """
method: passthrough
slices:
  - models: [{path: ./a, layers: [0, 3]}]
  - models: [{path: ./b, layers: [1, 4]}]
"""


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_stacks(tmp_path)


def merged(text: str, out: str = "out") -> dict[str, float]:
    """The first number of every tensor of a merge."""
    run(polyak.plan(loads(text)), out, workers=1)
    with polyak.open(out) as model:
        return {name: float(model.read(name).flat[0]) for name in model.specs}


def layers_of(found: dict[str, float]) -> list[float]:
    return [found[f"model.layers.{i}.mlp.weight"] for i in range(sum("mlp" in name for name in found))]


def config(out: str = "out") -> dict:
    return json.loads(Path(out, "config.json").read_text())


def refused(text: str, *parts: str, kind: type[errors.PolyakError] = errors.RecipeError) -> None:
    with pytest.raises(kind) as caught:
        polyak.plan(loads(text))
    for part in parts:
        assert part in str(caught.value)


def test_layers_are_put_on_one_another_and_ends_come_from_the_outer_slices(stacks):
    found = merged(FRANKEN)
    assert layers_of(found) == [100, 101, 102, 201, 202, 203]
    assert (found["model.embed_tokens.weight"], found["model.norm.weight"], found["lm_head.weight"]) == (150, 260, 270)
    assert config()["num_hidden_layers"] == 6
    assert config()["layer_types"] == ["full", "sliding", "full", "sliding", "full", "sliding"]
    assert config()["architectures"] == CONFIG["architectures"]


def test_layers_may_be_repeated_left_out_and_turned_around(stacks):
    slices = ", ".join(f"{{models: [{{path: ./a, layers: [{i}, {i + 1}]}}]}}" for i in (3, 1, 1))
    found = merged(f"method: passthrough\nslices: [{slices}]")
    assert layers_of(found) == [103, 101, 101]
    assert config()["layer_types"] == ["sliding", "sliding", "sliding"]


def test_a_model_without_slices_may_lose_layers(stacks):
    found = merged("method: passthrough\nmodels: [{path: ./a, layers: [1, 3]}]")
    assert layers_of(found) == [101, 102]
    assert config()["num_hidden_layers"] == 2


def test_a_slice_merges_its_models_by_its_own_method_and_depth(stacks):
    text = """
method: linear
slices:
  - models: [{path: ./a, layers: [0, 2], weight: {gradient: [0, 1], outside: 1}}, {path: ./b, layers: [2, 4]}]
    settings: {normalize: false, weight: 0}
  - models: [{path: ./a, layers: [3, 4]}]
    method: passthrough
    settings: {scale: 2.0}
  - models: [{path: ./c, layers: [0, 1]}]
    base: {path: ./a, layers: [2, 3]}
    method: task_arithmetic
    settings: {scale: 0.5}
"""
    found = merged(text)
    assert layers_of(found) == [0, 101, 206, (300 + 102) / 2]
    assert found["model.embed_tokens.weight"] == 150
    assert found["lm_head.weight"] == (170 + 370) / 2


def test_rules_and_random_numbers_go_by_the_layers_of_the_result(stacks):
    text = FRANKEN.replace("[1, 4]}]", "[1, 4]}]\n    rules: [{match: mlp, layers: [4, 5], settings: {scale: 0}}]")
    assert layers_of(merged(text)) == [100, 101, 102, 201, 0, 203]


def test_the_plan_names_the_slices_and_counts_what_is_read(stacks):
    plan = polyak.plan(loads(FRANKEN))
    said = plan.explain()
    assert "slice 1: passthrough(scale=1) of a" in said
    assert "slice 2: passthrough(scale=1) of b" in said
    assert list(plan.models) == ["a", "b"]
    assert plan.nbytes_read == plan.nbytes_written == 4 * (6 * (HIDDEN * HIDDEN + HIDDEN) + 2 * 10 * HIDDEN + HIDDEN)


def test_the_digests_of_the_inputs_are_those_of_the_stored_tensors(stacks):
    merged(FRANKEN)
    checked = verify("out", inputs=True)
    assert checked.inputs == {"a": "unchanged", "b": "unchanged"}
    assert checked.differing == ()


def test_a_recipe_with_slices_reads_back_as_it_was_written(stacks):
    for text in (FRANKEN, FRANKEN + "dtype: bfloat16\nseed: 3\nbuffers: first\nbase: ./c\n"):
        recipe = loads(text)
        assert loads(dump(recipe)) == recipe


def test_the_base_beside_slices_gives_the_config(stacks):
    write_model(stacks / "d", tensors(4), CONFIG | {"from": "d"})
    merged(FRANKEN + "base: ./d\n")
    assert config()["from"] == "d"
    assert config()["num_hidden_layers"] == 6


def test_the_config_of_a_base_of_another_depth_follows_the_slices(stacks):
    write_model(stacks / "d", tensors(4, layers=3), CONFIG | {"num_hidden_layers": 3, "layer_types": ["full"] * 3})
    merged(FRANKEN + "base: ./d\n")
    assert config()["num_hidden_layers"] == 6
    assert config()["layer_types"] == ["full", "sliding", "full", "sliding", "full", "sliding"]


def test_the_same_bytes_whatever_the_workers(stacks):
    plan = polyak.plan(loads(FRANKEN))
    assert run(plan, "one", workers=1).digest == run(plan, "three", workers=3, tile=7).digest


def test_layers_out_of_range_are_refused_with_what_there_is(stacks):
    refused(
        FRANKEN.replace("[1, 4]", "[1, 5]"), "slice 2: layers [1, 5) of b are out of range", "it has 4", "stop is 4"
    )


def test_models_of_unequal_length_are_refused_with_every_length(stacks):
    text = "method: linear\nslices: [{models: [{path: ./a, layers: [0, 2]}, {path: ./b, layers: [0, 3]}]}]"
    refused(text, "slice 1", "a gives 2 ([0, 2))", "b gives 3 ([0, 3))")


def test_a_slice_that_its_method_cannot_merge_is_refused_by_name(stacks):
    text = "method: passthrough\nslices: [{models: [{path: ./a, layers: [0, 2]}, {path: ./b, layers: [0, 2]}]}]"
    refused(text, "slice 1", "exactly 1 model", kind=errors.SettingError)
    text = "method: ties\nslices: [{models: [{path: ./a, layers: [0, 2]}]}]"
    refused(text, "slice 1: method 'ties' works on differences", "Give `base:`")


def test_stacks_of_different_names_or_shapes_are_refused(stacks):
    write_model(stacks / "other", tensors(4, prefix="transformer."), CONFIG)
    refused(FRANKEN.replace("./b", "./other"), "'transformer.layers.'", "'model.layers.'", kind=errors.Mismatch)
    wide = {name: np.repeat(tensor, 2, -1) for name, tensor in tensors(5).items()}
    write_model(stacks / "wide", wide, CONFIG)
    refused(FRANKEN.replace("./b", "./wide"), "slice 2", "[4, 8]", "[4, 4]", kind=errors.Mismatch)


def test_a_name_for_two_models_is_refused(stacks):
    write_stacks(stacks / "more")
    refused(FRANKEN.replace("./b", "./more/a"), "'a' is the name of two different models", "`name:`")


def test_several_stacks_need_a_word(stacks):
    both = tensors(1, prefix="encoder.") | tensors(1, prefix="decoder.")
    write_model(stacks / "both", both, {"model_type": "t5", "num_layers": 4, "num_decoder_layers": 4})
    text = "method: passthrough\nmodels: [{path: ./both, layers: [0, 2]}]"
    refused(text, "several stacks of layers: decoder.layers (4 layers), encoder.layers (4 layers)", "`stack:`")
    found = merged(text.replace("[0, 2]", "[0, 2], stack: decoder.layers"))
    assert sum(".layers." in name for name in found) == 2 * 4 + 2 * 2
    assert (config()["num_layers"], config()["num_decoder_layers"]) == (4, 2)
    refused(text.replace("[0, 2]", "[0, 2], stack: layers"), "no stack of layers 'layers'")


def test_a_model_without_layers_is_refused(stacks):
    write_model(stacks / "flat", {"w": np.ones((2, 2), np.float32)})
    refused("method: passthrough\nmodels: [{path: ./flat, layers: [0, 1]}]", "flat has no layers")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (FRANKEN + "settings: {scale: 2}\n", "settings has no effect together with slices"),
        (FRANKEN + "models: [./a]\n", "one of models, slices and modules"),
        ("method: passthrough\nslices: []", "slices must be a list of one or more"),
        ("method: passthrough\nslices: [{models: [a], dtype: float32}]", "slices[0].dtype is an unknown key"),
        ("method: passthrough\nslices: [{models: [{path: a, layers: [3, 2]}]}]", "layers must be [first, stop)"),
        ("method: linear", "has no 'models'"),
    ],
)
def test_what_a_slice_cannot_say_is_refused(text, part):
    with pytest.raises(errors.RecipeError) as caught:
        loads(text)
    assert part in str(caught.value)


def test_heads_of_tasks_are_refused_in_slices(stacks):
    refused(FRANKEN.replace("[1, 4]}]", "[1, 4]}]\n    heads: lm_head"), "slice 2 has `heads:`")
