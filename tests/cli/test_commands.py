"""The command line, as users meet it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ..engine.conftest import random_family, recipe_text, write_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    for name, tensors in random_family().items():
        write_model(folder / name, tensors)
    (folder / "recipe.yaml").write_text(recipe_text())
    return folder


def test_merge_verify_and_diff(place, polyak):
    report = json.loads(polyak(place, "merge", "recipe.yaml", "out", "--json"))
    assert report["tensors"] == 8
    assert "0 differ" in polyak(place, "verify", "out")
    assert json.loads(polyak(place, "verify", "out", "--inputs", "--json"))["inputs"] == dict.fromkeys(
        ("base", "m0", "m1", "m2"), "unchanged"
    )
    assert "are equal" in polyak(place, "diff", "base", "base")
    said = polyak(place, "diff", "base", "out")
    assert "layers.0 " in said and "largest movers" in said


def test_a_seed_on_the_command_line_replaces_the_recipes(place, polyak):
    (place / "dare.yaml").write_text(recipe_text("dare_linear") + "seed: 1\n")
    digests = [
        json.loads(polyak(place, "merge", "dare.yaml", f"seed-{i}", "--json", *options))["digest"]
        for i, options in enumerate([[], ["--seed", "1"], ["--seed", "2"]])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_verify_names_a_changed_tensor(place, polyak):
    polyak(place, "merge", "recipe.yaml", "tampered")
    path = place / "tampered" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "was changed" in polyak(place, "verify", "tampered", code=6)
    assert "has no polyak.json" in polyak(place, "verify", "base", code=4)


def test_plan_probe_finds_relatives_strangers_and_nan(place, polyak):
    assert "related" in polyak(place, "plan", "recipe.yaml", "--probe")
    stranger = {n: np.flip(t).copy() if t.ndim else t for n, t in random_family(seed=9)["base"].items()}
    write_model(place / "stranger", stranger)
    (place / "odd.yaml").write_text("models: [./m0, ./stranger]\nmethod: linear\n")
    assert "look unrelated" in polyak(place, "plan", "odd.yaml", "--probe")
    stranger["layers.0.w"][...] = np.nan
    write_model(place / "stranger", stranger)
    assert "holds nan" in polyak(place, "plan", "odd.yaml", "--probe", code=4)
    assert len(json.loads(polyak(place, "plan", "recipe.yaml", "--json"))["steps"]) == 8


def test_inspect_shows_what_a_header_says(place, polyak):
    assert "8 tensors" in polyak(place, "inspect", "m0")
    assert json.loads(polyak(place, "inspect", "m0", "--json"))["tensors"]["norm"] == {
        "dtype": "BF16",
        "shape": [32],
        "nbytes": 64,
    }


def test_methods_lists_all_and_shows_one(place, polyak):
    names = {m["name"] for m in json.loads(polyak(place, "methods", "--json"))}
    assert {"linear", "ties", "slerp"} <= names
    said = polyak(place, "methods", "ties")
    assert "arXiv:2306.01708" in said and "density" in said
    assert "Did you mean 'ties'" in polyak(place, "methods", "tise", code=3)


@pytest.mark.parametrize(
    ("recipe", "code", "says"),
    [
        ("models: [./m0]\nmethod: liner\n", 3, "Did you mean 'linear'"),
        ("models: [./m0, ./nowhere]\nmethod: linear\n", 4, "nowhere does not exist"),
        ("models: [./m0, ./m1]\nmethod: linear\nsetings: {}\n", 3, "Did you mean 'settings'"),
        ("models: [./m0, ./m1]\nmethod: ties\n", 3, "Give `base:`"),
        ("models: [\n", 3, "line"),
    ],
)
def test_a_wrong_recipe_is_one_message_and_an_exit_code(place, polyak, recipe, code, says):
    (place / "wrong.yaml").write_text(recipe)
    assert says in polyak(place, "merge", "wrong.yaml", "never", code=code)
    assert not (place / "never").exists()


def test_budgets_sizes_and_places_are_checked(place, polyak):
    assert "needs about" in polyak(place, "merge", "recipe.yaml", "never", "--memory", "1MB", code=5)
    assert "no digest 'md5'" in polyak(place, "merge", "recipe.yaml", "never", "--digest", "md5", code=3)
    assert "is not a size" in polyak(place, "merge", "recipe.yaml", "never", "--shard-size", "big", code=2)
    assert "where base lies" in polyak(place, "merge", "recipe.yaml", "base", code=5)
    assert "cannot be read" in polyak(place, "merge", "missing.yaml", "never", code=3)
