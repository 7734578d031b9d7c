"""Merged from window to window, without tiles: the bytes and the errors are those of tiles."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import methods
from polyak.checkpoint import DTYPES
from polyak.checkpoint import open as open_checkpoint
from polyak.engine import run, run_in_memory, tuning
from polyak.engine.first_passes import gram as passes
from polyak.engine.step import fused as streaming
from polyak.engine.step import merge as merging
from polyak.errors import NotFinite
from polyak.planning import plan as plan_recipe
from polyak.recipe import Model, Recipe, Source

from .conftest import random_family, recipe_text, write_model

methods.load_all()
SHAPES = {"layers.0.w": (61, 113), "layers.0.b": (3,), "nothing": (0, 4)}
WORDS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LOOPS = [m for m in methods.registry.values() if m.is_fusable]


def planned(method, family, dtype="BF16"):
    models = tuple(Model(f"m{i}", Source(path="x"), {}) for i in range(len(family) - 1))
    given = {name: open_checkpoint(tensors) for name, tensors in family.items()}
    settings = {"density": 0.4} if "density" in method.settings else {}
    return plan_recipe(Recipe(method.name, models, settings=settings, dtype=WORDS[dtype]), given)


@pytest.fixture
def taken(monkeypatch):
    """The names of tensors that were merged without tiles; windows are small, so that there are several."""
    names: list[str] = []

    def noted(span, *more):
        names.append(span.prepared.step.out.name)
        return streaming.merge_fused(span, *more)

    monkeypatch.setattr(merging, "merge_fused", noted)
    monkeypatch.setattr(merging, "batches", lambda spans, tile: ([span] for span in spans))
    monkeypatch.setattr(tuning, "FUSED_READ_NBYTES", 20_000)
    return names


PAIRS = [("F64", "F64"), ("F32", "F32"), ("F16", "F16"), ("BF16", "BF16"), ("BF16", "F32"), ("F8_E4M3", "BF16")]
CASES = [(m, "BF16", "BF16") for m in LOOPS] + [(methods.resolve("task_arithmetic"), *pair) for pair in PAIRS]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stored", "out"), CASES, ids=lambda v: v if isinstance(v, str) else v.name)
def test_windows_give_the_bytes_of_tiles(method, stored, out, taken):
    family = random_family(models=method.models[1] or 3, dtype=DTYPES[stored].numpy, shapes=SHAPES)
    by_windows, by_tiles = (run_in_memory(planned(method, family, out), tile=tile) for tile in (None, 1000))
    for name in by_tiles:
        assert by_windows[name].tobytes() == by_tiles[name].tobytes(), name
    assert taken == ["layers.0.w", "layers.0.b"] * (stored != "F8_E4M3")  # those are widened by a table


def test_sources_of_several_dtypes_are_merged_in_tiles(taken):
    family = random_family(shapes=SHAPES)
    family["m1"] = {name: tensor.astype(np.float32) for name, tensor in family["m1"].items()}
    run_in_memory(planned(methods.resolve("linear"), family))
    assert taken == []


@pytest.mark.parametrize("model", ["base", "m2"])
def test_a_number_that_is_not_finite_is_found_in_any_window(tmp_path, taken, model):
    family = random_family(shapes=SHAPES)
    family[model]["layers.0.w"][58, 7] = np.inf
    for name, tensors in family.items():
        write_model(tmp_path / name, tensors)
    (tmp_path / "recipe.yaml").write_text(recipe_text("task_arithmetic"))
    with pytest.raises(NotFinite, match=rf"'layers.0.w' of {model} .* holds inf at \[58, 7\]"):
        run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "out")
    assert "layers.0.w" in taken


def test_a_result_too_large_for_its_dtype_is_refused_by_name(taken):
    big = {"w": np.full((40, 41), 60_000, ml_dtypes.bfloat16)}
    family = {"base": big} | {f"m{i}": big for i in range(2)}
    recipe = Recipe(
        "linear",
        tuple(Model(f"m{i}", Source(path="x")) for i in range(2)),
        settings={"weight": 2.0, "normalize": False},
        dtype="float16",
    )
    with pytest.raises(NotFinite, match="the merge of 'w' by 'linear' holds numbers that F16"):
        run_in_memory(plan_recipe(recipe, {name: open_checkpoint(one) for name, one in family.items()}))


@pytest.mark.parametrize("method", ["slerp", "model_stock"])
@pytest.mark.parametrize("stored", ["F32", "BF16"])
def test_inner_products_of_stored_numbers_are_those_of_tiles(method, stored, monkeypatch):
    """Several windows of several blocks, the last of each short; to the last bit."""
    shape = {"layers.0.w": (301, 1013)}
    family = random_family(models=2, dtype=DTYPES[stored].numpy, shapes=shape)
    plan, found = planned(methods.resolve(method), family), list[object]()
    answers = passes.GramOfTensors.answers_for
    monkeypatch.setattr(
        passes.GramOfTensors,
        "answers_for",
        lambda *a: [found.append(one.value.tobytes()) or one for one in answers(*a)],
    )
    run_in_memory(plan)
    monkeypatch.setattr(passes, "products", lambda dtype: None)
    run_in_memory(plan)
    assert len(found) == 2
    assert found[0] == found[1]


def test_a_number_that_is_not_finite_is_found_by_the_first_pass(tmp_path):
    family = random_family(models=2, shapes={"layers.0.w": (301, 1013)})
    family["m1"]["layers.0.w"][300, 1] = np.nan
    for name, tensors in family.items():
        write_model(tmp_path / name, tensors)
    (tmp_path / "recipe.yaml").write_text("models: [./m0, ./m1]\nmethod: slerp\n")
    with pytest.raises(NotFinite, match=r"'layers.0.w' of m1 .* holds nan at \[300, 1\]"):
        run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "out")
