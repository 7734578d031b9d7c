"""Sparse soups: exact sparsity, IMP as a soup of one, bytes of `polyak merge`, resumption, wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak as library
from polyak import training
from polyak.errors import CannotResume, CheckpointError, PolyakError, RecipeError, TaskError
from polyak.events import Notice, UnitFinished
from polyak.training.sparse.layers import check_support, read_masks
from polyak.training.sparse.selectors import sparsity_at

from . import problem

SHORT = {"epochs": 4.0, "retrain_epochs": 1.0, "sparsity": 0.8, "phases": 1, "copies": 2, "baselines": []}


def keys(folder: Path, **more: Any) -> dict[str, Any]:
    return problem.keys(folder, **{**SHORT, **more})


def weights(out: Path) -> dict[str, bytes]:
    """The weights of all units and the files of the run that do not hold times."""
    paths = [*out.rglob("*.safetensors"), *out.rglob("*.sparse"), out / "metrics.jsonl", out / "report.html"]
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(paths)}


@pytest.fixture(scope="module")
def soup(tmp_path_factory) -> Path:
    """A run with everything kept and all baselines."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("soup")
    problem.write(folder)
    more = {"keep": "all", "soup": "greedy", "phases": 2, "baselines": ["imp", "imp_long", "imp_average", "dense"]}
    training.sparse_soup(folder / "out", **keys(folder, **more))
    return folder / "out"


def results(out: Path) -> dict[str, Any]:
    entries = [json.loads(line)[1] for line in (out / "journal.jsonl").read_text().splitlines()]
    return {entry["unit"]: entry["result"] for entry in entries if "result" in entry}


def test_the_sparsity_is_exact_after_every_phase_and_masks_are_kept(soup):
    total = 8 * 24 + 24 * 16 + 16 * 3
    for phase in (1, 2):
        left = total - round(sparsity_at(0.8, phase, 2) * total)
        masks = read_masks(soup / f"units/soup.{phase}.pruned")
        assert sum(int(mask.sum()) for mask in masks.values()) == left
        for unit in (f"soup.{phase}.pruned", f"soup.{phase}.copy1", f"soup.{phase}.copy2", f"soup.{phase}.average"):
            with library.open(soup / "units" / unit / "model") as model:
                assert check_support(model, masks) <= left
                nonzero = {name: np.count_nonzero(model.read(name)) for name in masks}
            assert sum(nonzero.values()) == left, unit  # no weight became zero by chance
    assert results(soup)["soup.2.average"]["metrics"]["sparsity"] == pytest.approx(1 - left / total)


def test_masks_that_were_not_kept_are_noticed(soup):
    masks = read_masks(soup / "units/soup.2.pruned")
    with library.open(soup / "units/soup.1.average/model") as model, pytest.raises(CheckpointError, match="not zero"):
        check_support(model, masks)


def test_the_average_of_runs_loses_sparsity_and_pruning_it_again_restores_it(soup):
    masks = read_masks(soup / "units/soup.2.pruned")

    def nonzero(unit: str) -> int:
        with library.open(soup / "units" / unit / "model") as model:
            return sum(int(np.count_nonzero(model.read(name))) for name in masks)

    assert nonzero("imp.average") > nonzero("imp1.2.average")
    assert nonzero("imp.average.pruned") == nonzero("imp1.2.average") == sum(int(m.sum()) for m in masks.values())


def test_baselines_have_the_lengths_of_their_names(soup):
    steps = {
        unit: max(json.loads(line)["step"] for line in path.read_text().splitlines())
        for path in soup.glob("units/*/metrics.jsonl")
        if (unit := path.parent.name)
    }
    assert steps["dense"] == 36
    assert {steps[unit] for unit in ("soup.1.copy1", "soup.2.copy2", "imp1.2.copy1", "imp2.2.copy2")} == {9}
    assert {steps["long.1.copy1"], steps["long.2.copy1"], steps["dense.longer"]} == {18}


def test_the_report_has_every_model_and_the_compact_file_is_the_model(soup):
    page = (soup / "report.html").read_text()
    names = ["soup (greedy)", "IMP, run 2", "IMP, 2 times the retraining", "average of IMP runs, pruned again"]
    for words in [*names, "dense, trained as long", "mean copy", "ensemble of the copies", "Multiplications", "80.0%"]:
        assert words in page, words
    compact = library.open(soup / "units/test.soup.2.average/model.sparse")
    with compact, library.open(soup / "units/soup.2.average/model") as dense:
        for name in dense.specs:
            assert compact.read(name).tobytes() == dense.read(name).tobytes()
    counted = results(soup)["test.soup.2.average"]["multiplications"]
    assert counted == {"dense": 624, "sparse": 624 - round(0.8 * 624)}


def test_a_greedy_soup_has_taken_what_did_not_make_it_worse(soup):
    average = results(soup)["soup.2.average"]
    best = 0.0
    for step in average["greedy"]:
        assert step["taken"] is (step["score"] >= best)
        best = max(best, step["score"])
    assert average["taken"] == [step["copy"] for step in average["greedy"] if step["taken"]]
    assert average["metrics"]["validation"] == best


def test_a_soup_of_one_is_imp(points):
    first = training.sparse_soup(points / "out", **keys(points, copies=1, phases=2, baselines=["imp"]))
    assert weights_of(first.out / "units/soup.2.average") == weights_of(first.out / "units/imp1.2.average")


def weights_of(unit: Path) -> bytes:
    return (unit / "model/model.safetensors").read_bytes()


def test_a_soup_is_what_polyak_merge_writes(points):
    out = training.sparse_soup(points / "out", **keys(points, module="tests.training.problem:Plain", keep="all")).out
    library.merge(out / "units/soup.1.average/recipe.yaml", points / "merged")
    assert (points / "merged/model.safetensors").read_bytes() == weights_of(out / "units/soup.1.average")


def test_a_soup_with_batchnorm_differs_from_the_merge_in_measured_statistics_alone(points):
    out = training.sparse_soup(points / "out", **keys(points, keep="all", phases=1)).out
    library.merge(out / "units/soup.1.average/recipe.yaml", points / "merged")
    with library.open(points / "merged") as merged, library.open(out / "units/soup.1.average/model") as model:
        changed = [name for name in merged.specs if merged.read(name).tobytes() != model.read(name).tobytes()]
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}


def test_two_workers_write_the_same_bytes(points):
    one = training.sparse_soup(points / "one", **keys(points)).out
    two = training.sparse_soup(points / "two", **keys(points), workers=2).out
    assert weights(one) == weights(two)


SCRIPT = """
import sys
from pathlib import Path
from polyak import training
from polyak.events import UnitAdvanced, UnitStarted
from tests.training.test_sparse_soup import keys
import os, signal

folder, out, unit = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def kill(event):
    if getattr(event, "name", "") == unit and isinstance(event, UnitStarted if "average" in unit else UnitAdvanced):
        os.kill(os.getpid(), signal.SIGKILL)

training.sparse_soup(out, **keys(folder, checkpoint_every=3), resume=True, progress=kill)
"""


def test_a_run_that_is_killed_again_and_again_writes_the_same_bytes(points):
    whole = training.sparse_soup(points / "whole", **keys(points, checkpoint_every=3)).out
    for unit in ("soup.1.copy2", "soup.1.average", "test.dense"):
        arguments = [sys.executable, "-c", SCRIPT, str(points), str(points / "killed"), unit]
        code = subprocess.run(arguments, check=False).returncode
        assert code == (0 if unit.startswith("test") else -signal.SIGKILL)
    assert weights(points / "killed") == weights(whole)


def test_disk_is_bounded_by_what_is_kept(points):
    out = training.sparse_soup(points / "out", **keys(points, keep="result", phases=2, baselines=["imp"])).out
    kept = {path.parent.name for path in out.glob("units/*/model")}
    assert kept == {"dense", "soup.2.average", "imp1.2.average"}
    assert not list((out / "unfinished").iterdir())


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({"vary": "length", "values": [1.0, 2.0]}, [9, 18]),
        ({"vary": "learning_rate", "values": [0.01, 0.1]}, [9, 9]),
        ({"vary": "weight_decay", "values": [0.0, 0.1]}, [9, 9]),
    ],
)
def test_copies_differ_in_one_thing(points, more, steps):
    prepared = training.prepare("sparse_soup", keys(points, phases=1, baselines=[], **more))
    copies = [prepared.plan.stages[2].units[i].task[0].copy(i + 1) for i in range(2)]
    assert [copy.steps for copy in copies] == steps
    assert len({copy.seed for copy in copies}) == 1
    assert (copies[0].setup.how != copies[1].setup.how) is (more["vary"] != "length")


def test_convolutions_2_of_4_greedy_and_allr_work_together(points):
    more = {"module": "tests.training.problem:Images", "selector": "1:2", "sparsity": 0.5, "dense": "^conv"}
    trained = training.sparse_soup(points / "out", **keys(points, retrain_schedule="allr", soup="greedy", **more))
    with library.open(trained.model) as model:
        assert (np.count_nonzero(model.read("head.weight").reshape(3, 32, 2), axis=2) == 1).all()
        assert np.count_nonzero(model.read("conv.0.weight")) == 72


def test_a_sparsity_of_zero_is_a_soup_without_pruning(points):
    prepared = training.prepare("sparse_soup", keys(points, sparsity=0.0, baselines=[]))
    assert "the sparsity is 0: a soup without pruning" in prepared.plan.notes
    trained = training.launch(prepared, points / "out")
    with library.open(trained.model) as model:
        assert np.count_nonzero(model.read("head.weight")) == 48


def test_a_model_on_disk_is_the_dense_one(points):
    first = training.sparse_soup(points / "out", **keys(points, phases=1, baselines=[]))
    more = keys(points, phases=1, baselines=[], model=str(first.out / "units/dense/model"))
    second = training.sparse_soup(points / "again", **more)
    assert weights_of(first.out / "units/soup.1.average") == weights_of(second.out / "units/soup.1.average")
    assert not (second.out / "units/dense/metrics.jsonl").exists()


def test_a_layer_that_is_pruned_to_nothing_is_named(points):
    import torch

    trained = training.sparse_soup(points / "dense", **keys(points, phases=1, baselines=[], copies=1))
    with library.open(trained.out / "units/dense/model") as model:
        state = {name: torch.from_numpy(model.read(name).copy()) for name in model.specs}
    for name, factor in [("0.weight", 0.03), ("0.bias", 0.03), ("1.running_mean", 0.03), ("1.running_var", 0.03**2)]:
        state[f"layers.{name}"] *= factor  # the BatchNorm after it makes up for that
    torch.save(state, points / "model.pt")
    told: list[Any] = []
    more = keys(points, model=str(points / "model.pt"), sparsity=0.5, phases=1, baselines=[])
    with pytest.raises(PolyakError):  # whose copies are at chance
        training.sparse_soup(points / "out", **more, progress=told.append)
    assert any("the layer 'layers.0.weight' is pruned to nothing" in e.text for e in told if isinstance(e, Notice))


def test_a_copy_that_diverges_is_left_out_by_name(points):
    told: list[Any] = []
    more = {"vary": "learning_rate", "values": [0.05, 1e30], "module": "tests.training.problem:Plain", "phases": 1}
    out = training.sparse_soup(points / "out", **keys(points, **more), progress=told.append).out
    (failed,) = [event for event in told if isinstance(event, UnitFinished) and event.state == "failed"]
    assert failed.name == "soup.1.copy2"
    assert "it diverged" in failed.error
    assert results(out)["soup.1.average"]["taken"] == ["soup.1.copy1"]
    assert "soup.1.copy2: it diverged" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"sparsity": 1.0}, RecipeError, "sparsity must be at least 0 and below 1; got 1.0. A sparsity of 1 leaves no"),
        ({"sparsty": 0.5}, RecipeError, "sparsty is an unknown key. Did you mean 'sparsity'?"),
        ({"copies": 0}, RecipeError, "copies must be at least 1; got 0"),
        ({"soup": "gready"}, RecipeError, "soup must be one of uniform, greedy; got 'gready'. Did you mean"),
        ({"selector": "globl"}, RecipeError, "unknown selector 'globl'"),
        ({"vary": "length"}, RecipeError, "needs a value per copy: `values` has 0, and `copies` is 2"),
        ({"values": [1.0]}, RecipeError, "`values` are given, and copies differ in their seeds"),
        ({"vary": "length", "values": [0.0, 1.0]}, RecipeError, "`values` of `vary: length` must be above 0"),
        ({"retrain_epochs": 0.0}, RecipeError, "`retrain_epochs` must be above 0"),
        ({"dense": "."}, RecipeError, "leaves all 3 layers dense"),
        ({"baselines": ["omp"]}, RecipeError, "a list of any of imp, imp_long"),
        ({"module": None}, TaskError, "names no model to run the task"),
        ({"task": 3}, RecipeError, "task must be a task file, package.module:function"),
        ({"recipe": "cross-lingual"}, RecipeError, "is a recipe of 'cross-lingual', not of 'sparse_soup'"),
    ],
)
def test_wrong_input_is_refused_before_anything_starts(points, more, error, message):
    wrong = {key: value for key, value in keys(points, **more).items() if value is not None}
    with pytest.raises(error) as told:
        training.sparse_soup(points / "out", **wrong)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert not (points / "out").exists()


def test_a_task_without_a_split_is_refused(points):
    for lacking, splits in [("validation", "{train: 0.5, test: 0.5}"), ("train", "{validation: 0.5, test: 0.5}")]:
        problem.write(points, splits=splits)
        with pytest.raises(TaskError, match=f"has no split '{lacking}'"):
            training.prepare("sparse_soup", keys(points))


def test_a_model_at_chance_is_refused(points):
    with pytest.raises(
        TaskError, match=r"the dense model is at chance: accuracy .* for always the most frequent answer"
    ):
        training.sparse_soup(points / "out", **keys(points, learning_rate=1e-9, epochs=0.1))


def test_a_run_is_not_resumed_with_another_schedule_or_other_data(points):
    training.sparse_soup(points / "out", **keys(points, phases=1, baselines=[]))
    with pytest.raises(CannotResume, match=r"settings.retrain_schedule is 'llr' there and 'ft' now"):
        training.sparse_soup(points / "out", **keys(points, phases=1, baselines=[], retrain_schedule="ft"), resume=True)
    problem.write(points, rows=200)
    with pytest.raises(CannotResume, match=r"inputs.train is "):
        training.sparse_soup(points / "out", **keys(points, phases=1, baselines=[]), resume=True)


def test_a_unit_whose_folder_vanished_is_made_again(points):
    more = keys(points, phases=1, baselines=[], keep="all")
    out = training.sparse_soup(points / "out", **more).out
    before = weights(out)
    shutil.rmtree(out / "units/soup.1.copy1")
    training.sparse_soup(points / "out", **more, resume=True)
    assert weights(out) == before


def test_the_command_explains_trains_resumes_and_lists(points, monkeypatch, capsys):
    from polyak.cli import main

    def called(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["polyak", "train", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        assert not ended.value.code, output.err
        return output.out

    monkeypatch.chdir(points)
    recipe = {**keys(points, phases=1, baselines=[]), "task": "points.yaml", "recipe": "sparse-soup"}
    Path("soup.yaml").write_text(json.dumps(recipe))
    assert "sparse-soup: Prune, retrain copies of the same pruned model" in called("list")
    assert "sparsity=0.9: Share of the weights" in called("sparse-soup", "--help")
    explained = called("sparse-soup", "soup.yaml", "--explain")
    assert "sparse_soup: 10 units in 5 stages, 54 steps" in explained
    assert "time: about" in explained
    assert "disk: about" in explained
    assert sorted(os.listdir()) == ["points.jsonl", "points.yaml", "soup.yaml"]
    data = json.loads(called("sparse-soup", "soup.yaml", "--explain", "--json"))
    assert data["stages"][2] == [["soup.1.copy1", 9], ["soup.1.copy2", 9]]
    shown = called("sparse-soup", "soup.yaml", "out")
    assert "out/units/soup.1.average/model: test " in shown
    again = json.loads(called("sparse_soup", "soup.yaml", "out", "--resume", "--json"))
    assert again["metrics"].keys() == {"test", "calibration error", "worst class"}
    written = training.prepare("sparse_soup", Path("out/recipe.yaml"))  # which can be run again
    assert written.settings == training.prepare("sparse_soup", Path("soup.yaml")).settings
