"""`polyak learn`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")


from . import problems


@pytest.fixture(scope="module")
def place(world):
    for number in (0, 1):
        (world / f"task-{number}.yaml").write_text(
            f"kind: image-classification\ndata: task-{number}.jsonl\nimage: point\nscale: 1\ninput: points\n"
            "splits: {calibration: 0.4, validation: 0.3, test: 0.3}\n"
        )
    (world / "nets_of_learn.py").write_text("from tests.learn.problems import Network\n")
    (world / "pair.yaml").write_text("base: ./base\nmodels: [./expert-0, ./expert-1]\nmethod: task_arithmetic\n")
    (world / "one.yaml").write_text("base: ./base\nmodels: [./expert-0]\nmethod: task_arithmetic\n")
    problems.write_points(world / "bare.jsonl", problems.examples(40)[0])
    return world


MODULE = ("--task", "task-0.yaml", "--module", "nets_of_learn:Network")


def test_a_learned_recipe_is_written_with_its_log_and_merges_from_another_folder(polyak, place, tmp_path):
    out = tmp_path / "learned.yaml"
    told = json.loads(polyak("learn", "adamerging", "pair.yaml", *MODULE, "-o", out, "--set", "steps=3", "--json"))
    assert told["provenance"]["learned_by"] == "adamerging" and told["weights"].keys() == {"expert-0", "expert-1"}
    log = [json.loads(line) for line in (tmp_path / "learned.log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [0, 1, 2] and len(log[0]["coefficients"]) == 6
    polyak("merge", out, tmp_path / "one", "--quiet")
    polyak("merge", out, tmp_path / "two", "--quiet")
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_nothing_there_is_replaced_unless_asked(polyak, place, tmp_path):
    out = tmp_path / "soup.yaml"
    polyak("learn", "lm_cocktail", "pair.yaml", *MODULE, "-o", out)
    before = out.read_bytes()
    assert "--force" in polyak("learn", "lm_cocktail", "pair.yaml", *MODULE, "-o", out, code=5)
    assert "learn from" in polyak("learn", "lm_cocktail", "pair.yaml", *MODULE, "-o", "pair.yaml", "--force", code=5)
    assert out.read_bytes() == before
    polyak("learn", "lm_cocktail", "pair.yaml", *MODULE, "-o", out, "--force")
    assert out.read_bytes() == before


def test_a_learner_may_be_spelled_with_dashes(polyak, place, tmp_path):
    out = tmp_path / "soup.yaml"
    told = json.loads(polyak("learn", "lm-cocktail", "pair.yaml", *MODULE, "-o", out, "--json"))
    assert told["provenance"]["learned_by"] == "lm_cocktail"


def test_the_list_shows_every_learner_with_its_settings(polyak):
    said = polyak("learn", "list")
    for name in ("adamerging", "frank_wolfe", "greedy_soup", "learned_soup", "lm_cocktail"):
        assert f"{name}: " in said
    assert "granularity=layer  (layer, task)" in said and "steps=500  (at least 1)" in said


WRONG = [
    (("adamergin", "pair.yaml"), 3, "Did you mean 'adamerging'?"),
    (("adamerging", "one.yaml"), 3, "two models or more"),
    (("adamerging", "pair.yaml", "--set", "lr=nan"), 3, "'lr' of learner 'adamerging' must be"),
    (("adamerging", "pair.yaml", "--set", "lr"), 2, "NAME=VALUE"),
    (("adamerging", "pair.yaml", "--device", "nowhere"), 7, "nowhere"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG)
def test_what_is_wrong_is_said_and_nothing_is_written(polyak, tmp_path, arguments, code, said):
    assert said in polyak("learn", *arguments, *MODULE, "-o", tmp_path / "x.yaml", code=code)
    assert not list(tmp_path.iterdir())


def test_a_task_without_a_calibration_split_or_labels_is_refused_by_name(polyak, place, tmp_path):
    (place / "plain.yaml").write_text(
        "kind: image-classification\ndata: task-0.jsonl\nimage: point\nscale: 1\ninput: points\n"
    )
    module = ("--module", "nets_of_learn:Network", "-o", tmp_path / "x.yaml")
    said = polyak("learn", "adamerging", "pair.yaml", "--task", "plain.yaml", *module, code=7)
    assert "'plain' has no split 'calibration'" in said and "kept apart" in said
