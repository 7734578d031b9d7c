"""The Python interface: signatures, models in memory, and how plans and reports print."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak.errors import SettingError
from polyak.events import Advanced, Finished, Started

from .engine.conftest import random_family, recipe_text, write_model


class Module:
    """What `torch.nn.Module` has in common with others: a state dict."""

    def __init__(self, tensors):
        self.tensors = tensors

    def state_dict(self):
        return self.tensors


@pytest.fixture
def family(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = random_family()
    for name, one in tensors.items():
        write_model(tmp_path / name, one)
    (tmp_path / "recipe.yaml").write_text(recipe_text())
    return tensors


def test_dir_shows_the_public_names_and_nothing_else():
    assert dir(polyak) == sorted(polyak.__all__)


def test_merge_has_its_real_signature():
    from polyak import engine

    own = inspect.signature(polyak.merge).parameters
    assert all(p.kind is not p.VAR_KEYWORD for p in own.values())
    assert set(own) - {"recipe"} == set(inspect.signature(engine.run).parameters) - {"plan", "tile"}
    with pytest.raises(TypeError, match="wrkers"):
        polyak.merge("recipe.yaml", "out", wrkers=2)  # type: ignore[call-arg]


def read(folder):
    with polyak.open(folder) as model:
        return {name: model.read(name).tobytes() for name in model.specs}


@pytest.mark.parametrize("wrap", [dict, Module, polyak.open], ids=["state dict", "module", "checkpoint"])
def test_a_recipe_takes_models_in_memory(family, wrap):
    settings = {"method": "ties", "settings": {"density": 0.5}}
    polyak.merge({**settings, "models": ["m0", "m1"], "base": "base"}, "from-files")
    models = [wrap(family["m0"]), {"name": "second", "path": wrap(family["m1"]), "weight": 1.0}]
    report = polyak.merge({**settings, "models": models, "base": wrap(family["base"])}, "from-memory")
    assert read("from-memory") == read("from-files")
    models = json.loads((report.out / "polyak.json").read_text())["models"]
    assert {name: one["path"] for name, one in models.items()} == dict.fromkeys(models, "in memory")
    assert list(models) == ["base", "model-0", "second"]


def test_models_in_memory_and_in_files_mix(family):
    polyak.merge({"models": ["m0", "m1"], "method": "slerp"}, "from-files")
    polyak.merge({"models": ["m0", family["m1"]], "method": "slerp"}, "mixed")
    assert read("mixed") == read("from-files")


def test_a_merge_of_models_in_memory_is_not_resumed(family):
    with pytest.raises(SettingError, match="cannot be resumed"):
        polyak.merge({"models": [family["m0"], "m1"], "method": "linear"}, "out", resume=True)


def test_modules_are_merged_as_their_state_dicts(family):
    expected = polyak.merge_state_dicts([family["m0"], family["m1"]], base=family["base"], method="task_arithmetic")
    modules = {"a": Module(family["m0"]), "b": Module(family["m1"])}
    merged = polyak.merge_state_dicts(modules, base=Module(family["base"]), method="task-arithmetic")
    assert merged.keys() == expected.keys()
    assert all(np.array_equal(merged[name], expected[name]) for name in merged)


def test_torch_modules_are_merged():
    torch = pytest.importorskip("torch")
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    merged = polyak.merge_state_dicts(models)
    torch.testing.assert_close(merged["weight"], (models[0].weight + models[1].weight).detach() / 2)
    models[0].load_state_dict(merged)


def test_progress_goes_to_a_function_or_a_bar(family):
    events = []
    polyak.merge("recipe.yaml", "out", progress=events.append)
    assert isinstance(events[0], Started) and events[-1] == Finished("merging")
    done = sum(event.count for event in events if isinstance(event, Advanced))
    assert 0 < done == pytest.approx(events[0].total, rel=0.01)
    assert polyak.merge("recipe.yaml", "out", progress=True, force=True).tensors == 8


class StartAdvanceSay:
    """Receives progress by methods, as progress bars of other libraries do; it cannot be called."""

    def start(self, total): ...
    def advance(self, count): ...
    def say(self, text): ...


@pytest.mark.parametrize("progress", [StartAdvanceSay(), None, "bar"])
def test_progress_that_cannot_be_called_is_refused_before_anything_starts(family, progress):
    before = sorted(Path.cwd().iterdir())
    with pytest.raises(SettingError, match="progress must be a function"):
        polyak.merge("recipe.yaml", "never", progress=progress)
    assert sorted(Path.cwd().iterdir()) == before


def test_plans_and_reports_print_and_render(family):
    plan = polyak.plan("recipe.yaml")
    assert repr(plan).startswith("<Plan: 8 tensors of base, m0, m1, m2 by ties; read ") and len(repr(plan)) < 120
    assert str(plan) == plan.explain()
    page = plan._repr_html_()
    assert "<caption>Plan</caption>" in page and "<caption>Treatments</caption>" in page and "ties(" in page
    report = polyak.merge("recipe.yaml", "out")
    assert str(report).startswith(f"{report.out}: 8 tensors, ")
    assert report.digest in report._repr_html_()
