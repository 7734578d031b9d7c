"""Strategies of getting one model from a run, in one table; on runs as trainers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import averaging, tasks
from polyak.averaging import Opener, Weighting
from polyak.checkpoint import Checkpoint
from polyak.errors import CheckpointError, SettingError, TaskError

from ..adapters.made import SHAPES, deltas, write_adapter
from ..docs.models import write_tensors
from .test_runs import polyak, write_trainer_run

TARGETS = np.array([17.0, 18.0, 20.0, 21.0, 24.0])  # their mean is the mean of the run's weights, 20


def nearness(model: Checkpoint) -> list[float]:
    """How near a model's mean weight is to five numbers."""
    return (-np.abs(model.read("w").mean() - TARGETS)).tolist()


def shifted(model: Checkpoint) -> list[float]:
    """The same of other numbers, near to which the first checkpoint is."""
    return (-np.abs(model.read("w").mean() - TARGETS + 12)).tolist()


HERE = f"{__name__}:nearness"


def selected(*words: object) -> Any:
    return json.loads(polyak("select", *words, "--json"))


def test_strategies_stand_in_one_table_beside_the_oracle(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    shown = polyak("select", run, "--task", HERE, "--dev", "eval_accuracy", "--floor", 0)
    rows = [line.split("  ")[0] for line in shown.splitlines()]
    assert [name for name in rows if name in ("last", "source-dev best", "average", "oracle")] == [
        "last", "source-dev best", "average", "oracle",
    ]  # fmt: skip
    assert "checkpoint-20" in next(line for line in shown.splitlines() if line.startswith("oracle"))
    assert "an upper bound, not a strategy" in shown


def test_scores_are_those_of_the_models_that_were_chosen_or_averaged(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run", steps=(10, 20, 40))
    found = selected(run, "--task", HERE, "--dev", "eval_accuracy", "--floor", 0, "--by", "step", "--form", "power")
    (task,) = found["comparison"]["tasks"]
    mean, best, last = (-float(np.abs(at - TARGETS).mean()) for at in (70 / 3, 20.0, 40.0))
    scores = {name: one["score"]["value"] for name, one in task["results"].items()}
    powers = np.array([10, 20, 40]) ** 0.7
    weighted = -float(np.abs(powers @ np.array([10, 20, 40]) / powers.sum() - TARGETS).mean())
    wanted = {"last": last, "source-dev best": best, "average": mean, "average by step, power 0.7": weighted}
    assert scores == pytest.approx(wanted | {"oracle": best}, rel=1e-6)
    assert task["results"]["average"]["difference"]["value"] == pytest.approx(mean - last, rel=1e-6)
    assert found["checkpoints"]["nearness"]["checkpoint-10"] == pytest.approx(-float(np.abs(10 - TARGETS).mean()))
    assert found["chosen"]["nearness"]["average"] == "3 checkpoints"


def test_strategies_are_compared_with_any_of_them(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    found = selected(run, "--task", HERE, "--against", "average")["comparison"]
    results = found["tasks"][0]["results"]
    assert found["models"] == list(results) == ["average", "last", "oracle"]
    moved = results["last"]["score"]["value"] - results["average"]["score"]["value"]
    assert results["last"]["difference"]["value"] == pytest.approx(moved)
    assert moved < 0
    with pytest.raises(SettingError, match=r"unknown strategy .averages. to compare with\. Did you mean 'average'"):
        polyak("select", run, "--task", HERE, "--against", "averages")


def test_each_task_has_an_oracle_of_its_own(tmp_path: Path):
    found = selected(write_trainer_run(tmp_path / "run"), "--task", HERE, "--task", f"{__name__}:shifted")
    assert found["chosen"]["nearness"]["oracle"] == "checkpoint-20"
    assert found["chosen"]["shifted"]["oracle"] == "checkpoint-10"
    assert "source-dev best" not in found["chosen"]["nearness"]


def test_averages_go_without_checkpoints_that_development_data_tells_are_bad(tmp_path: Path):
    found = selected(write_trainer_run(tmp_path / "run"), "--task", HERE, "--dev", "eval_accuracy")
    assert found["chosen"]["nearness"]["average"] == "2 checkpoints"
    assert found["notes"] == ["left out: checkpoint-10, whose eval_accuracy of 0.5 is too far from the best, 0.8"]
    assert set(found["checkpoints"]["nearness"]) == {"checkpoint-10", "checkpoint-20", "checkpoint-30"}


def test_without_a_form_every_form_that_fits_is_compared(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    assert {name for name in selected(run, "--task", HERE, "--by", "loss")["chosen"]["nearness"] if "by" in name} == {
        f"average by loss, {form} 0.7" for form in averaging.BY_METRIC
    }
    shown = polyak("select", run, "--task", HERE, "--by", "loss", "--penalty", 2)
    assert "note: no average by loss, rank: the penalty" in shown
    with pytest.raises(SettingError, match=r"the penalty of the weighting 'rank' must be in"):
        polyak("select", run, "--task", HERE, "--by", "loss", "--penalty", 2, "--form", "rank")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--by", "losses"), r"no 'losses' was logged"),
        (("--by", "loss", "--form", "ranks"), r"unknown weighting 'ranks'"),
        (("--dev", "eval_acc"), r"no 'eval_acc' was logged"),
        (("--against", "lst"), r"unknown strategy 'lst' to compare with\. Did you mean 'last'"),
        (("--after", "1.5"), r"the fraction of a run to leave out must be in \[0, 1\); got 1\.5"),
        (("--dev", "eval_loss", "--floor", "2"), r"the floor is a share of the best score"),
    ],
)
def test_what_select_does_not_know_is_refused_by_name(tmp_path: Path, options: tuple[str, ...], said: str):
    with pytest.raises(SettingError, match=said):
        polyak("select", write_trainer_run(tmp_path / "run"), "--task", HERE, *options)


def test_an_exponential_average_is_one_of_the_strategies(tmp_path: Path):
    found, notes = averaging.weightings([], Weighting("ema", decay=0.5))
    assert list(found) == ["average", "average by ema, 0.5"]
    assert not notes


def test_a_source_task_chooses_by_examples_that_are_not_reported_on(tmp_path: Path):
    run = averaging.read_run(write_trainer_run(tmp_path / "run"))
    asked: list[str] = []

    def score(model: Checkpoint, task: tasks.Scorer) -> tasks.Scores:
        asked.append(task.name)
        return tasks.evaluate(model, task)

    assert averaging.best_on(run, tasks.FunctionScorer(shifted), Opener(), score).name == "checkpoint-10"
    assert asked == ["shifted"] * 3
    with pytest.raises(TaskError, match="validation"):  # a function has test examples alone
        polyak("select", tmp_path / "run", "--task", HERE, "--source", HERE)


def test_equal_checkpoints_give_the_earliest(tmp_path: Path):
    run = averaging.read_run(write_trainer_run(tmp_path / "run"))
    level = tasks.FunctionScorer(lambda model: [1.0, 2.0], name="level")
    assert averaging.best_on(run, level, Opener(), tasks.evaluate).name == "checkpoint-10"


def write_adapter_run(place: Path, base: Path) -> Path:
    for step in (10, 20):
        write_adapter(place / f"checkpoint-{step}", seed=step, base_model_name_or_path=str(base))
    rng = np.random.default_rng(0)
    write_tensors(base, {f"{name}.weight": rng.normal(size=shape).astype("f4") for name, shape in SHAPES.items()})
    return place


def first_weights(model: Checkpoint) -> list[float]:
    """Some weights themselves, so that scores tell which model it was."""
    return model.read("model.layers.0.q_proj.weight")[0].astype(np.float64).tolist()


def test_adapters_are_scored_on_their_base(tmp_path: Path):
    base = tmp_path / "base.safetensors"
    run = write_adapter_run(tmp_path / "run", base)
    task = f"{__name__}:first_weights"
    found = selected(run, "--task", task)["comparison"]["tasks"][0]["results"]
    assert found == selected(run, "--task", task, "--base", base)["comparison"]["tasks"][0]["results"]
    name, steps = "model.layers.0.q_proj", (10, 20)
    with Opener(str(base)).checkpoint(averaging.read_run(run)[0]) as model:
        first = np.array(first_weights(model))
    plain = first - deltas(run / "checkpoint-10")[name][0]
    mean = np.mean([deltas(run / f"checkpoint-{step}")[name][0] for step in steps], axis=0)
    assert found["average"]["score"]["value"] == pytest.approx(float((plain + mean).mean()), rel=1e-5)


def test_adapters_without_their_base_say_how_to_give_it(tmp_path: Path):
    base = tmp_path / "base.safetensors"
    run = write_adapter_run(tmp_path / "run", base)
    base.unlink()
    with pytest.raises(
        CheckpointError, match=r"checkpoint-10 is an adapter whose base '.*base.safetensors' does not exist"
    ):
        polyak("select", run, "--task", f"{__name__}:first_weights")


def test_two_tasks_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(TaskError, match="two tasks are named 'nearness'"):
        polyak("select", write_trainer_run(tmp_path / "run"), "--task", HERE, "--task", HERE)


def test_scores_are_kept_and_the_report_has_every_strategy(tmp_path: Path):
    run, cache, page = write_trainer_run(tmp_path / "run"), tmp_path / "scores", tmp_path / "page.html"
    once = selected(run, "--task", HERE, "--cache", cache, "--html", page)
    assert len(list(cache.iterdir())) == 4
    assert selected(run, "--task", HERE, "--cache", cache) == once
    assert "oracle" in page.read_text()
