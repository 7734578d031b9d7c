"""Tiles of whole rows across pieces, and windows that hold whole tiles."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak.checkpoint import open as open_checkpoint
from polyak.engine import run, run_in_memory, tuning
from polyak.inspection.verification import verify
from polyak.methods import load_all, resolve
from polyak.planning import plan as plan_recipe
from polyak.recipe import Model, Recipe, Source

from .conftest import random_family, recipe_text, write_model

load_all()
SHAPES = {"layers.0.w": (700, 30), "layers.0.conv": (90, 5, 3, 2), "vector": (5000,), "thin": (1, 999)}


def planned(method: str, family, **settings):
    models = tuple(Model(f"m{i}", Source(path="x")) for i in range(3))
    given = {name: open_checkpoint(tensors) for name, tensors in family.items()}
    return plan_recipe(Recipe(method, models, settings=settings, seed=3), given)


@pytest.mark.parametrize("rescale", ["inverse_keep", "l1"])
def test_rows_that_lie_in_two_pieces_are_merged_as_in_one(rescale, monkeypatch):
    family = random_family(shapes=SHAPES, dtype=np.float32)
    whole = run_in_memory(planned("della", family, rescale=rescale))
    monkeypatch.setattr(tuning, "CHUNK", 1024)
    for workers, tile in ((1, 64), (3, 1000)):
        cut = run_in_memory(planned("della", family, rescale=rescale), workers=workers, tile=tile)
        for name, tensor in whole.items():
            np.testing.assert_allclose(cut[name], tensor, rtol=2e-6, atol=1e-7, err_msg=name)


def test_della_in_tiles_is_its_definition_with_the_same_numbers():
    from polyak.kernels.philox import stream

    family = random_family(shapes=SHAPES, dtype=np.float32)
    got = run_in_memory(planned("della", family), tile=500)
    for name, tensor in got.items():
        stack = np.stack([family[f"m{i}"][name] for i in range(3)])
        chance = stream(3, ("m0", "m1", "m2"), name).numbers(tensor.size).reshape(stack.shape)
        wanted = resolve("della")(stack, family["base"][name], chance=chance)
        np.testing.assert_allclose(tensor, wanted, rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("method", ["linear", "della"])
def test_what_five_models_are_made_of_is_hashed_once(method, tmp_path):
    """Tiles of many models do not divide what is read at once; what two reads share must not be hashed twice."""
    family = random_family(models=5, shapes={"layers.0.w": (1500, 701)}, dtype=ml_dtypes.bfloat16)
    for name, tensors in family.items():
        write_model(tmp_path / name, tensors)
    (tmp_path / "recipe.yaml").write_text(recipe_text(method, models=5))
    run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "out")
    found = verify(tmp_path / "out", inputs=True)
    assert set(found.inputs.values()) == {"unchanged"}
    assert not found.differing
