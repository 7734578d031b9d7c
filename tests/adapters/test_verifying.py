"""What merges say of adapters afterwards, and what they cost before."""

from __future__ import annotations

import numpy as np
import pytest

import polyak
from polyak import adapters, recipe
from polyak.inspection.verification import verify
from polyak.planning import peak_nbytes

from ..docs.models import write_tensors
from .made import SHAPES, write_adapter


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("base", "other"):
        tensors = {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
        write_tensors(tmp_path / name / "model.safetensors", tensors)
    write_adapter(tmp_path / "adapter")
    return tmp_path


def with_adapter():
    return {"path": "base", "lora": {"path": "adapter", "scale": 0.5}, "name": "adapted"}


def merged(place, model):
    asked = recipe.read({"models": [model, "other"], "method": "linear"}, place)
    polyak.merge(asked, place / "out")
    return verify(place / "out", inputs=True).inputs


@pytest.mark.parametrize(
    "model",
    [
        with_adapter(),
        {"recipe": {"models": ["base", "other"], "method": "linear"}, "name": "nested"},
        {"recipe": {"models": [with_adapter(), "other"], "method": "slerp"}, "name": "nested"},
    ],
    ids=["adapter", "nested", "both"],
)
def test_inputs_with_adapters_and_nested_merges_are_read_again(place, model):
    assert merged(place, model) == {model["name"]: "unchanged", "other": "unchanged"}
    write_tensors(
        place / "base/model.safetensors",
        {f"{n}.weight": np.ones(s, np.float32) for n, s in SHAPES.items()},
    )
    assert verify(place / "out", inputs=True).inputs[model["name"]].startswith("changed: ")


def test_an_adapter_that_changed_or_is_gone_is_noticed(place):
    merged(place, with_adapter())
    write_adapter(place / "adapter", 5)
    assert verify(place / "out", inputs=True).inputs["adapted"].startswith("changed: ")
    (place / "adapter/adapter_config.json").unlink()
    assert "adapter_config.json" in verify(place / "out", inputs=True).inputs["adapted"]


def test_merged_adapters_are_verified(place):
    write_adapter(place / "second", 2)
    adapters.merge(recipe.read({"models": ["adapter", "second"], "method": "linear"}, place), place / "out")
    found = verify(place / "out", inputs=True)
    assert (found.tensors, found.differing) == (2 * len(SHAPES), ())
    assert found.inputs == {"adapter": "unchanged", "second": "unchanged"}
    path = place / "out" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(verify(place / "out").differing) == 1


def test_the_factors_of_adapters_count_as_memory(place):
    plain = polyak.plan(recipe.read({"models": ["base", "other"], "method": "linear"}, place))
    adapted = polyak.plan(recipe.read({"models": [with_adapter(), "other"], "method": "linear"}, place))
    factors = 4 * sum(2 * (rows + columns) for rows, columns in SHAPES.values())
    assert peak_nbytes(adapted, 2) == peak_nbytes(plain, 2) + factors
    inner = [{"models": [one, "other"], "method": "linear"} for one in ("base", with_adapter())]
    outer = [{"models": [{"recipe": one, "name": "n"}, "other"], "method": "linear"} for one in inner]
    without, nested = (polyak.plan(recipe.read(one, place)) for one in outer)
    assert peak_nbytes(nested, 2) == peak_nbytes(without, 2) + factors
