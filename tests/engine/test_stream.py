"""Tensors handed on one by one, nested merges that leave plans as they are, and sizes that change no byte."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import polyak
from polyak.engine import opened, run_in_memory, stream, tuning
from polyak.errors import NotFinite
from polyak.planning import NestedMerge

from .conftest import random_family, write_model

SHAPES = {"layers.0.w": (61, 113), "layers.1.w": (4, 3), "layers.1.b": (3,), "scalar": (), "nothing": (0, 4)}


@pytest.fixture
def folder(tmp_path):
    for name, tensors in random_family(shapes=SHAPES).items():
        write_model(tmp_path / name, tensors)
    return tmp_path


def recipe(folder, **changes):
    models = [str(folder / "m0"), str(folder / "m1")]
    return {"base": str(folder / "base"), "models": models, "method": "ties", "dtype": "bfloat16", **changes}


@pytest.mark.parametrize("workers", [1, 3])
def test_every_tensor_is_handed_on_once_and_as_a_merge_in_memory_has_it(folder, monkeypatch, workers):
    monkeypatch.setattr(tuning, "CHUNK", 1024)  # tensors of several chunks
    plan, taken, lock = polyak.plan(recipe(folder)), [], threading.Lock()

    def take(step, tensor):
        with lock:
            taken.append((step.out.name, tensor))

    read = []
    stream(plan, take, workers=workers, advance=read.append)
    assert sorted(name for name, _ in taken) == sorted(SHAPES)
    for name, tensor in run_in_memory(plan).items():
        np.testing.assert_array_equal(dict(taken)[name], tensor, strict=True)
    assert sum(read) >= plan.nbytes_read


def test_a_failure_of_who_takes_tensors_ends_the_stream(folder):
    def refuse(step, tensor):
        raise NotFinite(f"no {step.out.name}")

    with pytest.raises(NotFinite, match="no "):
        stream(polyak.plan(recipe(folder)), refuse, workers=2)


def test_a_nested_merge_is_read_without_a_change_to_its_plan(folder):
    inner = recipe(folder, dtype="float32")
    models = [{"name": "inner", "recipe": inner}, str(folder / "m1")]
    plan = polyak.plan({"models": models, "method": "linear", "dtype": "float32"})
    nested = plan.models["inner"]
    readable = opened(plan, workers=1)
    assert isinstance(nested, NestedMerge) and plan.models["inner"] is nested
    assert all(read.checkpoint is nested for step in plan.steps for read in step.reads[:1])
    assert all(read.checkpoint is readable.models["inner"] for step in readable.steps for read in step.reads[:1])
    with pytest.raises(polyak.PolyakError, match="only a running merge can read it"):
        nested.read("layers.0.w")
    want = run_in_memory(polyak.plan(inner))["layers.0.w"]
    np.testing.assert_array_equal(readable.models["inner"].read("layers.0.w"), want)


def test_a_plan_without_nested_merges_is_opened_as_it_is(folder):
    plan = polyak.plan(recipe(folder))
    assert opened(plan, workers=1) is plan
