"""A base, two experts and a task, for searches."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")
pytest.importorskip("cmaes")

from polyak import recipe
from polyak.search import Search
from polyak.tasks import task_of
from tests.tasks.models import Network, write_data, write_model

RECIPE = """
base: ./base
models: [{path: ./a, weight: {search: [0, 1]}}, {path: ./b, weight: {search: [0, 1]}}]
method: ties
settings:
  density: {search: [0.1, 1]}
  scale: {search: [0.5, 2], log: true}
  topk: {search: {choices: [official, exact]}}
"""
NUMBERS = RECIPE.replace("topk: {search: {choices: [official, exact]}}", "topk: exact")
TASK = "{kind: image-classification, data: points.jsonl, scale: 1, splits: {validation: 0.7, test: 0.3}}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    write_data(folder / "points.jsonl")
    (folder / "points.yaml").write_text(TASK)
    (folder / "nets.py").write_text("from tests.tasks.models import Network\n")
    (folder / "open.yaml").write_text(RECIPE)
    (folder / "numbers.yaml").write_text(NUMBERS)
    write_model(folder / "base", epochs=3)
    write_model(folder / "a", noise=0.3, seed=1)
    write_model(folder / "b", noise=0.5, seed=2)
    return folder


@pytest.fixture
def task(place):
    def make(factory=Network, **changes):
        settings = {"kind": "image-classification", "data": "points.jsonl", "scale": 1, "metric": "loss"}
        return task_of(settings | {"splits": {"validation": 0.7, "test": 0.3}} | changes, place, factory=factory)

    return make


@pytest.fixture
def asked(place, task, tmp_path):
    """A search, in a study of its own."""

    def make(text=NUMBERS, tasks=None, **changes):
        found = recipe.loads(text, place)
        return Search(found, **({"tasks": tasks or [task()], "study": tmp_path / "study.db"} | changes))

    return make
