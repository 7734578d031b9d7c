"""Files of several documents and empty slices, as mergekit's users write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak.checkpoint import open as opened
from polyak.errors import RecipeError

from ..engine.conftest import write_model

SHAPES = {
    "model.embed_tokens.weight": (8, 4), "model.layers.0.w": (4, 4), "model.layers.1.w": (4, 4),
    "model.norm.weight": (4,), "lm_head.weight": (8, 4),
}  # fmt: skip


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    tensors = {m: {n: rng.normal(size=shape).astype(np.float32) for n, shape in SHAPES.items()} for m in "ab"}
    for name, each in tensors.items():
        write_model(tmp_path / name, each, {"num_hidden_layers": 2})
    return tensors


def merged(folder: Path, text: str) -> dict[str, np.ndarray]:
    (folder / "recipe.yaml").write_text(text)
    polyak.merge(folder / "recipe.yaml", folder / "out")
    with opened(folder / "out") as out:
        return {name: read(out, name) for name in out.specs}


def read(checkpoint, name: str) -> np.ndarray:
    values = np.empty(checkpoint.specs[name].shape, np.float32)
    checkpoint.read_into(name, 0, values.size, values.reshape(-1).view(np.uint8))
    return values


def linear(*weighted: tuple[str, float], name: str = "") -> str:
    entries = "".join(f"- {{model: {model}, parameters: {{weight: {weight}}}}}\n" for model, weight in weighted)
    return f"{f'name: {name}' if name else ''}\nmerge_method: linear\nmodels:\n{entries}"


def test_an_empty_last_slice_gives_head_and_norm(tmp_path: Path, models):
    half = "parameters: {weight: 0.5}}"
    text = (
        f"merge_method: linear\nslices:\n- sources:\n  - {{model: ./a, layer_range: [0, 2], {half}\n"
        f"  - {{model: ./b, layer_range: [0, 2], {half}\n"
        "- sources: [{model: ./a, layer_range: [2, 2], parameters: {weight: 1}}]\n"
    )
    out, a, b = merged(tmp_path, text), models["a"], models["b"]
    assert set(out) == set(SHAPES)
    for name in SHAPES:
        behind = name in ("lm_head.weight", "model.norm.weight")
        np.testing.assert_allclose(out[name], a[name] if behind else (a[name] + b[name]) / 2, atol=1e-6)


def test_slices_that_are_all_empty_are_refused(tmp_path: Path, models):
    with pytest.raises(RecipeError, match="no model gives a layer"):
        merged(tmp_path, "merge_method: passthrough\nslices:\n- sources: [{model: ./a, layer_range: [1, 1]}]\n")


def test_named_documents_refer_to_each_other_in_any_order(tmp_path: Path, models):
    result = linear(("first", 0.5), ("./b", 0.5))
    first = linear(("./a", 0.5), ("./b", 0.5), name="first")
    out = merged(tmp_path, f"{result}---\n{first}")
    for name in SHAPES:
        np.testing.assert_allclose(out[name], models["a"][name] / 4 + models["b"][name] * 0.75, atol=1e-6)


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ([linear(("y", 1), name="x"), linear(("x", 1), name="y")], "is circular: the merge 'x'"),
        ([linear(("./a", 1)), linear(("./b", 1))], "names must be unique"),
        ([linear(("./a", 1), name="x"), linear(("./b", 1))], "'x', to which the result does not refer"),
        ([linear(("./a", 1), name="x"), linear(("./b", 1), name="y")], "2 merges to which no other refers: x, y"),
        (["models: [./a]\nmethod: linear\n"] * 2, "polyak's own recipes are one per file"),
    ],
)
def test_documents_that_give_no_one_result_are_refused(tmp_path: Path, documents, problem):
    (tmp_path / "recipe.yaml").write_text("---\n".join(documents))
    with pytest.raises(RecipeError, match=problem):
        polyak.load_recipe(tmp_path / "recipe.yaml")
