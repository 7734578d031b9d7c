"""polyak lora, as users meet it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ..adapters.made import configuration, deltas, write_adapter
from ..docs.models import write_all


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    write_all(folder)
    for seed, name in enumerate("ab"):
        write_adapter(folder / name, seed)
    (folder / "ties.yaml").write_text("models: [a, b]\nmethod: ties\nadapter: {rank: 2}\n")
    return folder


def test_merge_takes_adapters_or_a_recipe_and_options_win(place, polyak):
    given = ["a", "b", "sum", "--weight", "1", "--weight", "-1", "--method", "task-arithmetic"]
    report = json.loads(polyak(place, "lora", "merge", *given, "--json"))
    assert report["share_lost"] == 0
    assert {m["rank"] for m in report["modules"].values()} == {4}
    assert set(deltas(place / "sum")) == set(report["modules"])
    report = json.loads(polyak(place, "lora", "merge", "ties.yaml", "ties", "--rank", "3", "--base", "org/b", "--json"))
    assert {m["rank"] for m in report["modules"].values()} == {3}
    assert 0 < report["share_lost"] == pytest.approx(report["relative_error"] ** 2)
    assert configuration(place / "ties")["base_model_name_or_path"] == "org/b"
    assert "0 differ" in polyak(place, "verify", "ties")


def test_extract_tells_what_is_lost_and_left_out_and_bake_takes_it_back(place, polyak):
    said = polyak(place, "lora", "extract", "base", "maths", "extracted", "--rank", "2")
    assert "28 modules of rank 2" in said
    assert "loses 0." in said
    assert "11 tensors differ and are left out: lm_head.weight" in said
    assert "39 tensors" in polyak(place, "lora", "bake", "base", "extracted", "baked")
    assert "0 differ" in polyak(place, "verify", "baked")
    inputs = json.loads(polyak(place, "verify", "baked", "--inputs", "--json"))["inputs"]
    assert inputs == {"model": "unchanged"}


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["merge", "out"], 2, "Give a RECIPE and OUT"),
        (["merge", "a", "--weights", "1,2", "out"], 2, "1 models have 2 weights"),
        (["merge", "ties.yaml", "out", "--weight", "1"], 2, "stand in the recipe"),
        (["merge", "ties.yaml", "out", "--rank", "0"], 2, "rank"),
        (["merge", "ties.yaml", "out", "--energy", "1.5"], 3, "adapter.energy must be above 0"),
        (["merge", "ties.yaml", "out", "--absent", "maybe"], 3, "refuse, zero"),
        (["merge", "a", "--method", "tis", "out"], 3, "Did you mean 'ties'"),
        (["merge", "a", "a", "out"], 2, "a is given twice"),
        (["merge", "base", "out"], 4, "no adapter_config.json"),
        (["merge", "a", "chat-adapter", "out"], 4, "is not in"),
        (["merge", "a", "base"], 5, "--force"),
        (["extract", "base", "maths", "out"], 3, "a rank, or an energy"),
        (["bake", "base", "a", "out"], 4, "adapter"),
    ],
)
def test_wrong_use_is_one_message_and_a_code(place, polyak, arguments, code, word):
    assert word in polyak(place, "lora", *arguments, code=code)
    assert not (place / "out").exists()


def test_diff_compares_the_updates_of_two_adapters(place, polyak):
    found = json.loads(polyak(place, "diff", "a", "b", "--json"))
    one, other = deltas(place / "a"), deltas(place / "b")
    names = {f"{module}.weight" for module in one.keys() & other.keys()}
    assert {tensor["name"] for tensor in found["tensors"]} == names
    for tensor in found["tensors"]:
        a, b = (side[tensor["name"].removesuffix(".weight")] for side in (one, other))
        assert tensor["change"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-5)
    told = polyak(place, "diff", "a", "base", code=4)
    assert "a is an adapter and base is not" in told
    assert "polyak lora bake BASE a OUT" in told
