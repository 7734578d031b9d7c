"""Searches: the same candidates whatever happens to them, in memory as on disk; and everything that can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polyak import api, checkpoint, recipe
from polyak.errors import CannotResume, OutputBusy, OutputError, RecipeError, SettingError, TaskError
from polyak.search import Examples, search
from polyak.search import candidates as merging
from polyak.search.results import best_of, front_of
from polyak.storage import Lock
from polyak.tasks import evaluate

from .conftest import NUMBERS, RECIPE


def tried(found):
    return [(one.values, one.objectives, one.state) for one in found.tried]


def test_the_best_recipe_rebuilds_the_candidate_and_its_score(asked, task, place, tmp_path):
    found = search(asked(RECIPE), trials=12)
    (tmp_path / "best.yaml").write_text(recipe.dump(found.recipe, tmp_path))
    api.merge(tmp_path / "best.yaml", tmp_path / "out")
    assert evaluate(tmp_path / "out", task(), split="validation").metric_value == found.best.objectives[0]
    assert found.best.objectives[0] == min(one.objectives[0] for one in found.tried)
    said = found.recipe.provenance
    assert said["learned_by"] == "search" and said["tasks"] == {"task": task().digest("validation")}
    assert said["trials"] == {"complete": 12} and said["seed"] == 0 and said["sampler"] == "tpe"
    assert sum(found.importance.values()) == pytest.approx(1) and found.importance.keys() == found.best.values.keys()


def test_the_baselines_come_first_and_have_defaults_and_equal_weights(asked):
    first, second, *_ = search(asked(RECIPE), trials=3).tried
    weights = {"models.a.weight", "models.b.weight"}
    assert (first.baseline, second.baseline) == ("uniform", "defaults")
    assert {first.values[name] for name in weights} == {0.5} and {second.values[name] for name in weights} == {1.0}
    assert first.values["settings.density"] == 0.2 and first.values["settings.topk"] == "official"


@pytest.mark.parametrize("sampler", ["tpe", "cma-es", "nsga-ii", "random"])
def test_an_interrupted_search_goes_on_as_it_would_have_gone(asked, tmp_path, sampler):
    whole = search(asked(sampler=sampler, study=tmp_path / "whole.db"), trials=14)
    parts = asked(sampler=sampler)
    told = []

    def stop(one):
        told.append(one)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(parts, trials=14, progress=stop)
    assert tried(search(parts, trials=14)) == tried(whole)


def test_a_candidate_that_was_interrupted_counts_for_nothing(asked, tmp_path, monkeypatch):
    whole = search(asked(study=tmp_path / "whole.db"), trials=6)
    merge, calls = merging.Candidates.merge, []

    def interrupted(self, values):
        calls.append(values)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return merge(self, values)

    monkeypatch.setattr(merging.Candidates, "merge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(asked(), trials=6)
    assert tried(search(asked(), trials=6)) == tried(whole)


def test_another_seed_proposes_other_candidates(asked, tmp_path):
    one, other = (search(asked(seed=seed, study=tmp_path / f"{seed}.db"), trials=4) for seed in (0, 1))
    assert tried(one)[:2] == tried(other)[:2] and tried(one)[2:] != tried(other)[2:]


def test_several_objectives_give_a_front(asked, task):
    tasks = [task(name="loss"), task(name="right", metric="accuracy")]
    found = search(asked(tasks=tasks, objective="each", sampler="nsga-ii"), trials=12)
    assert found.objectives == ("loss", "right") and found.directions == ("minimize", "maximize")
    assert found.best in found.front
    for one in found.tried:
        loss, right = one.objectives
        assert any(f.objectives[0] <= loss and f.objectives[1] >= right for f in found.front)


def test_fronts_leave_out_what_is_surpassed_and_the_best_is_in_between(asked):
    class One:
        def __init__(self, *objectives):
            self.objectives = objectives

    ends, middle, worse = [One(0.0, 1.0), One(1.0, 0.0)], One(0.8, 0.8), One(0.7, 0.7)
    front = front_of([ends[0], worse, middle, One(0.8, 0.8), ends[1]], ["maximize", "maximize"])
    assert front == [ends[0], middle, ends[1]] and best_of(front, ["maximize", "maximize"]) is middle
    assert front_of([ends[0], worse, middle], ["minimize", "minimize"]) == [ends[0], worse]


def test_experts_make_metrics_comparable(asked, task, place):
    tasks = [task(name="loss"), task(name="right", metric="accuracy")]
    with pytest.raises(TaskError, match="metrics cannot be averaged"):
        search(asked(tasks=tasks), trials=1)
    experts = {one.name: evaluate(place / "a", one, split="validation").metric_value for one in tasks}
    found = search(asked(tasks=tasks, experts=experts), trials=3)
    for one in found.tried:
        wanted = np.mean([experts["loss"] / one.metrics["loss"], one.metrics["right"] / experts["right"]])
        assert one.objectives == (wanted,)
    assert found.directions == ("maximize",)


def test_pruned_candidates_are_scored_on_a_part_of_the_examples_and_are_never_the_best(asked):
    found = search(asked(pruning=True, examples=Examples(batch_size=8)), trials=25)
    states = [one.state for one in found.tried]
    assert states.count("pruned") > 2 and states.count("complete") > 5
    assert found.best.state == "complete" and found.recipe.provenance["trials"]["pruned"] == states.count("pruned")


def test_no_candidate_begins_after_the_last_minute(asked):
    with pytest.raises(TaskError, match="none of 0 candidates"):
        search(asked(), trials=5, minutes=0)


def test_a_candidate_that_cannot_be_merged_is_kept_and_the_search_goes_on(asked):
    text = "models: [./a, ./b]\nmethod: linear\nsettings: {weight: {search: {choices: [0.0, 1.0]}}}"
    found = search(asked(text, sampler="random"), trials=8)
    failed = [one for one in found.tried if one.state == "failed"]
    assert failed and all("sum to zero" in one.error and one.values == {"settings.weight": 0.0} for one in failed)
    assert found.best.values == {"settings.weight": 1.0} and len(found.tried) == 8


def test_a_search_in_which_every_candidate_fails_says_why(asked, task):
    from tests.tasks.models import Network

    class Overflowing(Network):
        def forward(self, pixel_values):
            return super().forward(pixel_values) * float("nan")

    with pytest.raises(TaskError, match=r"none of 3 candidates could be .* candidate 0 has scores that are not finite"):
        search(asked(tasks=[task(Overflowing)]), trials=3)


def test_a_study_of_another_search_is_refused_and_left_as_it_was(asked, task):
    search(asked(), trials=2)
    other = NUMBERS.replace("[0.5, 2]", "[0.5, 3]")
    for wrong, what in [
        (asked(other), "recipe"),
        (asked(seed=1), "seed"),
        (asked(sampler="random"), "sampler"),
        (asked(tasks=[task(metric="accuracy")]), "tasks"),
        (asked(examples=Examples(limit=5)), "examples"),
    ]:
        with pytest.raises(CannotResume, match=f"another search: it differs in {what}"):
            search(wrong, trials=2)
    assert len(search(asked(), trials=2).tried) == 2


def test_files_that_are_no_studies_are_refused(asked, tmp_path, place):
    import sqlite3

    (tmp_path / "study.db").write_text("not a database at all")
    with pytest.raises(OutputError, match="it is not a SQLite database"):
        search(asked(), trials=1)
    assert (tmp_path / "study.db").read_text() == "not a database at all"
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("create table notes (text)")
    other.close()
    with pytest.raises(OutputError, match=r"other\.db (holds no study|cannot be used as a study)"):
        search(asked(study=tmp_path / "other.db"), trials=1)
    with pytest.raises(OutputError, match="cannot be written"):
        search(asked(study=place / "open.yaml" / "study.db"), trials=1)


def test_two_searches_do_not_use_one_study_at_once(asked, tmp_path):
    lock = Lock(tmp_path / ".study.db.lock")
    with pytest.raises(OutputBusy, match="another search is using"):
        search(asked(), trials=1)
    lock.release()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"text": NUMBERS.replace("{search: [0, 1]}", "1").replace("{search: [0.1, 1]}", "1")
          .replace("{search: [0.5, 2], log: true}", "1")}, RecipeError, "leaves nothing to search"),
        ({"text": RECIPE, "sampler": "cma-es"}, RecipeError, "settings.topk is categorical"),
        ({"sampler": "cmaes"}, SettingError, "Did you mean 'cma-es'"),
        ({"objective": "means"}, TaskError, "Did you mean 'mean'"),
        ({"objective": "each", "pruning": True}, SettingError, "a single objective"),
        ({"examples": Examples(split="test")}, TaskError, "the test split is for its report"),
        ({"examples": Examples(split="calibration")}, TaskError, "no split 'calibration'"),
        ({"experts": {"tusk": 1.0}}, TaskError, "Did you mean 'task'"),
        ({"experts": {"task": 0.0}}, TaskError, "cannot be divided by it"),
    ],
)  # fmt: skip
def test_wrong_searches_are_refused_before_anything_is_written(asked, tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        search(asked(**changes), trials=1)
    assert not (tmp_path / "study.db").exists()


def test_a_search_from_the_command_line_writes_its_recipe_and_report(polyak, place):
    command = ["search", "open.yaml", "--task", "points.yaml", "--module", "nets:Network", "-o", "best.yaml"]
    found = json.loads(polyak(*command, "--trials", 11, "--json", "--report", "--html", "report.html"))
    assert len(found["tried"]) == 11 and found["test"].keys() == {"points"}
    best = recipe.load(place / "best.yaml")
    assert best.models[0].source.path == "./a" and not recipe.sought(best)
    assert best.models[0].settings["weight"] == found["best"]["values"]["models.a.weight"]
    page = (place / "report.html").read_text()
    assert (
        page.count("<svg") == 1
        and "<caption>Candidates</caption>" in page
        and "Importance" in page
        and "http" not in page
    )
    again = json.loads(polyak(*command, "--trials", 12, "--json"))
    assert again["tried"][:11] == found["tried"]
    assert "Choose another path" in polyak("search", "numbers.yaml", *command[2:], code=5)
    polyak("merge", "best.yaml", "merged")
    assert checkpoint.open(place / "merged").specs


def test_jobs_share_a_study(polyak, place):
    command = ["search", "numbers.yaml", "--task", "points.yaml", "--module", "nets:Network", "-o", "jobs.yaml"]
    found = json.loads(polyak(*command, "--trials", 5, "--jobs", 2, "--json"))
    assert sorted(one["number"] for one in found["tried"]) == [0, 1, 2, 3, 4]
    assert len({str(one["values"]) for one in found["tried"]}) == 5


def test_a_recipe_with_searches_cannot_be_merged_or_planned(polyak, place):
    said = polyak("merge", "open.yaml", "nowhere", code=3)
    assert "models.a.weight is still a search range (5 in all)" in said and "polyak search" in said
    assert not (place / "nowhere").exists()
