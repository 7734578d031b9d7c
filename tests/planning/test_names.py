"""Models whose tensors have other names than those of their base: renamed and noted, or a renaming is proposed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import recipe
from polyak.checkpoint import open as opened
from polyak.errors import Mismatch
from polyak.planning import plan

TENSORS = {
    f"{part}.{leaf}": np.full((2, 3), i, np.float32)
    for i, part in enumerate(["embeddings", "encoder.layer.0.output", "encoder.layer.1.output"])
    for leaf in ("weight", "LayerNorm.weight", "LayerNorm.bias")
}
EXTRA = {"classifier.weight": np.ones((2, 2), np.float32)}
OLD = {"weight": "gamma", "bias": "beta"}


def _plan(base: dict[str, Any], tuned: dict[str, Any], **keys: Any) -> Any:
    data = {"method": "task_arithmetic", "models": [{"path": "tuned", "name": "tuned"}], "base": "base", **keys}
    return plan(recipe.read(data), {"base": opened(base), "tuned": opened(tuned)})


def _renamed(change: Callable[[str], str]) -> dict[str, Any]:
    return {change(name): value for name, value in TENSORS.items()}


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda name: f"bert.{name}", "strip_prefix: bert."),
        (lambda name: f"module.model.{name}", "strip_prefix: module.model."),
        (lambda name: name.replace("encoder.", "encoder._orig_mod."), "torch.compile adds `_orig_mod.`"),
        (
            lambda name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"),
            "LayerNorm.gamma and beta are weight and bias",
        ),
    ],
)
def test_one_renaming_of_all_names_is_applied_and_noted(change: Callable[[str], str], remedy: str) -> None:
    planned = _plan(TENSORS, _renamed(change))
    assert {step.out.name for step in planned.steps} == set(TENSORS)
    assert f"tuned: its tensors are renamed as in base ({remedy})" in planned.notes
    back = _plan(_renamed(change), TENSORS)
    assert {step.out.name for step in back.steps} == set(_renamed(change))
    assert [read.spec.name for step in planned.steps for read in step.reads] == [
        change(s.out.name) for s in planned.steps
    ]


def test_heads_keep_their_names() -> None:
    planned = _plan(TENSORS, _renamed(lambda name: f"bert.{name}") | EXTRA, heads="^classifier")
    assert {step.out.name for step in planned.steps} == {*TENSORS, *EXTRA}


def test_names_that_meet_already_are_left_alone() -> None:
    assert not any("renamed" in note for note in _plan(TENSORS, TENSORS).notes)


def test_other_shapes_are_not_renamed() -> None:
    other = {f"bert.{name}": np.ones((3, 2), np.float32) for name in TENSORS}
    with pytest.raises(Mismatch):
        _plan(TENSORS, other)


def test_a_renaming_of_most_names_is_proposed() -> None:
    tuned = _renamed(lambda name: f"bert.{name}") | EXTRA
    with pytest.raises(Mismatch, match=r"tuned: 9 of its 10 names match with `strip_prefix: bert\.`"):
        _plan(TENSORS, tuned)


def test_names_of_two_versions_of_a_library_meet(tmp_path: Path) -> None:
    shapes = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
    old = {
        f"vit.encoder.layer.0.attention.attention.{name}.weight": np.ones((2, 2), np.float32)
        for name in shapes.values()
    }
    new = {f"vit.layers.0.attention.{name}.weight": np.ones((2, 2), np.float32) for name in shapes}
    folders: dict[str, Any] = {}
    for name, tensors in (("base", old), ("tuned", new)):
        from safetensors.numpy import save_file

        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        folders[name] = opened(tmp_path / name)
    data = {"method": "task_arithmetic", "models": [{"path": "tuned", "name": "tuned"}], "base": "base"}
    planned = plan(recipe.read(data), folders)
    assert {step.out.name for step in planned.steps} == set(old)
    assert [read.spec.name for step in planned.steps for read in step.reads] == [
        f"vit.layers.0.attention.{({v: k for k, v in shapes.items()})[step.out.name.split('.')[-2]]}.weight"
        for step in planned.steps
    ]


def test_a_newer_library_that_cannot_be_asked_leaves_the_shipped_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from polyak.checkpoint.naming import facts

    asked: list[str] = []
    monkeypatch.setattr(facts, "_installed", asked.append)  # answers None, as without torch
    for version, reads in (("0.1", False), (facts.snapshot().version, False), ("1000.0.dev0", True)):
        monkeypatch.setattr(metadata, "version", lambda name, version=version: version)
        asked.clear()
        assert facts.facts_for({"model_type": "llama"}) is facts.snapshot()
        assert bool(asked) == reads
