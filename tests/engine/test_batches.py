"""Tiny tensors are merged as one: the same bytes, digests and errors as one by one."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak.engine import run
from polyak.engine.step import merge as merging
from polyak.engine.step import small_tensors as batches
from polyak.engine.step.prepared import prepared_steps
from polyak.errors import NotFinite
from polyak.storage import as_json

from .conftest import random_family, recipe_text, tree_digest, write_model

# Not in the order in which they are written, and of several kinds: only some are neighbours in the result.
SHAPES = {f"{'zyx'[i % 3]}{i}": (1 + i % 5, 3) for i in range(60)} | {"none": (0, 3), "scale": ()}
SLERP = "models: [./m0, ./m1]\nmethod: slerp\n"
RULES = "rules:\n  - match: ^y\n    settings: {weight: [0.5, 0.25, 2]}\n"


def write_family(folder: Path, dtype=ml_dtypes.bfloat16, poison: str = "") -> None:
    family = random_family(models=3, dtype=dtype, shapes=SHAPES)
    for name, tensors in family.items():
        if name == "m1" and poison:
            tensors[poison][0, 1] = np.nan
        other = {n: t.astype(np.float16) if n.endswith("4") else t for n, t in tensors.items()}
        write_model(folder / name, other | {"steps": np.arange(3)})


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "dare_linear", "slerp"])
def test_together_and_apart_are_the_same_files(tmp_path, monkeypatch, method):
    write_family(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SLERP if method == "slerp" else recipe_text(method) + RULES)
    sizes: list[int] = []
    together = merging.Merger._together
    monkeypatch.setattr(merging.Merger, "_together", lambda *a: sizes.append(len(a[1])) or together(*a))
    run(polyak.plan(recipe), tmp_path / "together")
    assert bool(sizes) == (method in ("linear", "task_arithmetic"))  # others draw numbers or know their tensor
    monkeypatch.setattr(merging, "batches", lambda spans, tile: ([span] for span in spans))
    run(polyak.plan(recipe), tmp_path / "apart")
    assert tree_digest(tmp_path / "together") == tree_digest(tmp_path / "apart")


def test_a_number_that_is_not_finite_names_its_tensor_among_many(tmp_path):
    write_family(tmp_path, poison="y13")
    (tmp_path / "recipe.yaml").write_text(recipe_text("linear"))
    with pytest.raises(NotFinite, match=r"'y13' of m1 .* holds nan at \[0, 1\]"):
        run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "out")


def test_a_batch_fits_a_tile(tmp_path):
    write_family(tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe_text("linear"))
    prepared = prepared_steps(polyak.plan(tmp_path / "recipe.yaml"))
    found = list(batches.batches([batches.Chunk(p, 0, p.step.out.numel) for p in prepared], 20))
    assert [span.prepared for batch in found for span in batch] == prepared
    assert max(len(batch) for batch in found) > 1
    assert all(len(batch) == 1 or sum(span.stop for span in batch) <= 20 for batch in found)


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        "x",
        {"a": {}},
        {"a": [1, 2.5, None], "b": {"c": {"d": "x\ny, z", "é": []}, "e": [{"a": 1}]}},
        [[1], []],
    ],
)
def test_json_is_written_as_the_library_indents_it(data):
    assert as_json(data) == json.dumps(data, indent=2, ensure_ascii=False) + "\n"
