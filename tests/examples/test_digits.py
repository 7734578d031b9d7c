"""The digits demo runs from training to report, and its merges are worth having."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
METHODS = ("linear", "median", "task_arithmetic")


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    pytest.importorskip("sklearn", reason="the demo's extra is not installed: pip install 'polyak[demo]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        return importlib.import_module("examples.digits.demo")


@pytest.fixture(scope="module")
def out(demo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder after a short run."""
    folder = tmp_path_factory.mktemp("digits")
    merges = tuple(merge for merge in demo.MERGES if merge.method in METHODS)
    demo.run(folder, pretraining=20, finetuning=4, merges=merges)
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def of_kind(results: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results["rows"] if row["kind"] == kind}


def test_every_merge_beats_the_base_and_the_mean_expert_on_average(results: dict[str, Any]) -> None:
    (base,) = of_kind(results, "base").values()
    (expert,) = of_kind(results, "mean").values()
    assert set(of_kind(results, "merge")) == set(METHODS)
    for name, merge in of_kind(results, "merge").items():
        assert merge["normalised"] > base["normalised"] + 0.02, name
        assert merge["normalised"] > expert["normalised"] + 0.02, name


def test_every_expert_is_the_best_expert_on_its_own_task(results: dict[str, Any]) -> None:
    experts = of_kind(results, "expert")
    assert list(experts) == results["tasks"]
    for task in results["tasks"]:
        assert max(experts.values(), key=lambda row: row["scores"][task])["name"] == task


def test_normalised_accuracy_is_relative_to_each_tasks_expert(results: dict[str, Any]) -> None:
    experts = of_kind(results, "expert")
    for row in results["rows"]:
        shares = [row["scores"][task] / experts[task]["scores"][task] for task in results["tasks"]]
        assert row["normalised"] == pytest.approx(sum(shares) / len(shares))


def test_a_scale_is_one_of_those_offered_and_stands_in_the_recipe(
    demo: ModuleType, results: dict[str, Any], out: Path
) -> None:
    offered = next(merge.scales for merge in demo.MERGES if merge.method == "task_arithmetic")
    scale = of_kind(results, "merge")["task_arithmetic"]["settings"]["scale"]
    assert scale in offered
    assert f"scale: {scale}\n" in (out / "recipes" / "task_arithmetic.yaml").read_text(encoding="utf-8")


def test_the_merged_model_is_the_mean_of_the_experts(demo: ModuleType, out: Path) -> None:
    merged = load_file(out / "merged" / "linear" / "model.safetensors")
    experts = [load_file(out / "models" / name / "model.safetensors") for name in demo.KINDS]
    assert merged.keys() == experts[0].keys()
    for name, tensor in merged.items():
        assert tensor == pytest.approx(sum(expert[name] for expert in experts) / len(experts), abs=1e-6)


def test_no_held_out_image_is_trained_or_chosen_on(demo: ModuleType) -> None:
    blocks = [set(range(part.start, part.stop)) for part in (demo.PARTS[n] for n in ("training", "validation", "test"))]
    assert len(set.union(*blocks)) == sum(map(len, blocks)) == 1797
    assert demo.PARTS["pretraining"].stop <= demo.PARTS["training"].stop


def test_the_page_needs_nothing_but_itself(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"https?://|<script|<link|<img|<iframe|@import|url\(", page)
    assert "<svg" in page and "prefers-color-scheme: dark" in page


def test_the_page_shows_numbers_recipes_plan_and_diff(out: Path, results: dict[str, Any]) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    for row in results["rows"]:
        assert f"<td>{100 * row['normalised']:.1f}</td>" in page, row["name"]
    for name in METHODS:
        assert f"method: {name}" in page
    for printed in ("polyak plan", "treatments", "polyak diff", "largest movers"):
        assert printed in page


def test_a_failing_command_ends_the_demo_with_its_message(demo: ModuleType, tmp_path: Path) -> None:
    merging = importlib.import_module("examples.merging")
    with pytest.raises(SystemExit, match=r"(?s)ended with 3:.*none\.yaml"):
        merging.polyak("plan", tmp_path / "none.yaml")
