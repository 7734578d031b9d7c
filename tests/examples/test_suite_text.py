"""The suite makes every row, keeps what has not changed, and refuses experts that learned nothing."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import write_texts

ROOT = Path(__file__).parents[2]
CLASSES = {"snips": 7, "trec6": 6}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The suite, reading made-up texts."""
    for name in ("torch", "transformers", "optuna"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    folder = tmp_path_factory.mktemp("text")
    for i, (name, classes) in enumerate(CLASSES.items()):
        write_texts(folder / f"{name}.train.jsonl.gz", classes, 200, seed=i)
        write_texts(folder / f"{name}.test.jsonl.gz", classes, 20, seed=10 + i)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        data = importlib.import_module("examples.suite_text.data")
        patch.setattr(data, "FOLDER", folder)
        patch.setattr(data, "TRAINING", 160)
        yield importlib.import_module("examples.suite_text.suite")
        for reader in (data.training, data.validation, data.test, data._drawn):
            reader.cache_clear()


@pytest.fixture(scope="module")
def out(suite: ModuleType, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's folder after a quick run."""
    folder = tmp_path_factory.mktemp("out")
    suite.run(source, folder, folder / "results.json", suite.QUICK)
    return folder


@pytest.fixture
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_every_row_is_made_with_as_many_seeds_as_it_needs(suite: ModuleType, results: dict[str, Any]) -> None:
    seeds = {row["name"]: len(row["seeds"]) for row in results["rows"]}
    wanted = {row.name: 2 if row.is_repeated else 1 for row in suite.rows(suite.QUICK.effort)}
    assert seeds == {"base": 1, "snips": 1, "trec6": 1, "multitask": 1, **wanted}
    assert results["missing"] == []
    assert all(row["seconds"] > 0 for row in results["rows"] if row["name"] in wanted)


def test_the_mean_is_that_of_the_tasks_and_lies_in_its_interval(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        value, low, high = row["mean"]
        assert value == pytest.approx(sum(row["tasks"].values()) / 2)
        assert low <= value <= high, row["name"]


def test_every_claim_has_an_effect(suite: ModuleType, results: dict[str, Any]) -> None:
    means = {row["name"]: row["mean"][0] for row in results["rows"]}
    table = importlib.import_module("examples.suite_text.table")
    assert [one["claim"] for one in results["effects"]] == [claim for claim, _, _ in table.CLAIMS]
    for one in results["effects"]:
        first, second = one["rows"]
        assert one["difference"][0] == pytest.approx(means[first] - means[second])


def test_a_second_run_trains_and_learns_nothing_again(
    suite: ModuleType, source: Path, out: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    making = importlib.import_module("examples.suite_text.making")
    monkeypatch.setattr(making.Workshop, "_merge", lambda *given: pytest.fail("merged again"))
    models = {file: file.stat().st_mtime_ns for file in out.glob("models/*/model.safetensors")}
    again = suite.run(source, out, out / "again.json", suite.QUICK)
    assert {row["name"]: row["tasks"] for row in again["rows"]} == {r["name"]: r["tasks"] for r in results["rows"]}
    assert models == {file: file.stat().st_mtime_ns for file in out.glob("models/*/model.safetensors")}


def test_other_settings_make_a_row_again(suite: ModuleType, source: Path, out: Path) -> None:
    making = importlib.import_module("examples.suite_text.making")
    models = importlib.import_module("examples.suite_text.models").Models(out / "models", tuple(CLASSES), 32)
    workshop = making.Workshop(out, models, suite.Board(out / "tasks", models, suite.QUICK.draws), suite.QUICK.effort)
    row = next(row for row in suite.rows(suite.QUICK.effort) if row.name == "TIES")
    assert (
        len({workshop._key(one, seed) for one in (row, replace(row, settings={"density": 0.3})) for seed in (0, 1)})
        == 4
    )


def test_an_expert_below_its_floor_fails_the_suite(suite: ModuleType, source: Path, out: Path) -> None:
    high = replace(suite.QUICK, floors={"snips": 1.01, "trec6": 0.0})
    with pytest.raises(suite.Failed, match="the expert of snips reaches 0"):
        suite.run(source, out, out / "failed.json", high, only=[])


def test_the_page_shows_every_row_and_needs_nothing_else(out: Path, results: dict[str, Any]) -> None:
    page = (out / "report.html").read_text()
    assert all(row["name"] in page for row in results["rows"])
    assert "http" not in page.replace("http-equiv", "")


def test_seeds_calibrate_on_other_texts_and_are_tested_on_the_same(suite: ModuleType, out: Path) -> None:
    models = importlib.import_module("examples.suite_text.models").Models(out / "models", tuple(CLASSES), 32)
    board = suite.Board(out / "tasks", models, suite.QUICK.draws)
    first, second = (board.tasks(seed)["snips"] for seed in (0, 1))
    assert first.digest("calibration") != second.digest("calibration")
    assert first.digest("test") == second.digest("test")


@pytest.mark.parametrize("jobs", [1, 2])
def test_jobs_give_their_results_in_order(suite: ModuleType, jobs: int) -> None:
    crew = importlib.import_module("examples.suite_text.crew")
    assert list(crew.each(partial(pow, 2), [5, 1, 3], jobs)) == [32, 2, 8]


def test_two_processes_never_read_half_a_file(suite: ModuleType, out: Path) -> None:
    models = importlib.import_module("examples.suite_text.models").Models(out / "models", tuple(CLASSES), 32)
    board = suite.Board(out / "again", models, suite.QUICK.draws)
    board.tasks(0)
    before = {file.name: file.read_bytes() for file in (out / "again").iterdir()}
    board.tasks(0)
    assert before == {file.name: file.read_bytes() for file in (out / "again").iterdir()}
    assert not any(name.endswith(tuple("0123456789")) for name in before)
