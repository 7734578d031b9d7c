"""What a plan finds before any tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run

from ..engine.conftest import random_family, write_model

BF16 = ml_dtypes.bfloat16


def tensors(seed: int = 0, **extra) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {
        "embed_tokens.weight": rng.standard_normal((10, 4)),
        "layers.0.w": rng.standard_normal((4, 4)),
        "layers.1.w": rng.standard_normal((4, 4)),
    }
    return {n: t.astype(BF16) for n, t in found.items()} | extra


def models(tmp_path: Path, **folders: dict) -> None:
    for name, contents in folders.items():
        write_model(tmp_path / name, contents)


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def merged(tmp_path: Path, text: str) -> polyak.Checkpoint:
    run(polyak.plan(recipe(tmp_path, text)), tmp_path / "out")
    return polyak.open(tmp_path / "out")


def test_a_missing_tensor_names_model_tensor_and_remedy(tmp_path):
    short = tensors(1)
    del short["layers.1.w"]
    models(tmp_path, a=tensors(), b=short)
    with pytest.raises(errors.Mismatch, match=r"(?s)'layers\.1\.w' is not in b.*skip: REGEX"):
        polyak.plan(recipe(tmp_path, "models: [./a, ./b]\nmethod: linear\n"))


def test_another_shape_names_both(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1) | {"embed_tokens.weight": np.zeros((12, 4), BF16)})
    with pytest.raises(errors.Mismatch, match=r"(?s)\[10, 4\] in a but BF16 \[12, 4\] in b.*vocabularies"):
        polyak.plan(recipe(tmp_path, "models: [./a, ./b]\nmethod: linear\n"))


def test_a_method_that_needs_a_base_says_so(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1))
    with pytest.raises(errors.RecipeError, match="Give `base:`"):
        polyak.plan(recipe(tmp_path, "models: [./a, ./b]\nmethod: ties\n"))


def test_weights_that_sum_to_zero_are_refused(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1))
    with pytest.raises(errors.SettingError, match="sum to zero"):
        polyak.plan(
            recipe(tmp_path, "models:\n  - {path: ./a, weight: 1}\n  - {path: ./b, weight: -1}\nmethod: linear\n")
        )


@pytest.mark.parametrize("method", ["linear", "multislerp", "nuslerp", "karcher"])
@pytest.mark.parametrize("weights", [[0.1 + 0.2, -0.3], [1e-300, -1e-320], [1, -1 - 1e-12]])
def test_weights_of_which_only_rounding_is_left_are_refused(tmp_path, method, weights):
    models(tmp_path, a=tensors(), b=tensors(1))
    data = {"models": ["a", "b"], "method": method, "settings": {"weight": weights}}
    with pytest.raises(errors.SettingError, match=f"{method}.*sum to zero|must be at least 0"):
        polyak.plan(polyak.recipe.read(data, tmp_path))


@pytest.mark.parametrize("weight", [1e39, -1e308])
def test_weights_that_float32_cannot_hold_are_refused(tmp_path, weight):
    models(tmp_path, a=tensors(), b=tensors(1))
    text = f"models: [{{path: ./a, weight: {weight}}}, ./b]\nmethod: linear\n"
    with pytest.raises(errors.SettingError, match=r"models\[0\]\.weight must be a number that float32 can hold"):
        polyak.plan(recipe(tmp_path, text))


def test_an_integer_tensor_beside_a_float_one_is_refused_with_the_remedy(tmp_path):
    models(tmp_path, a=tensors(), b={n: t.astype(np.int32) for n, t in tensors().items()})
    with pytest.raises(errors.Mismatch, match=r"in a but I32 .* in b\n  Integers do not merge.*`skip: REGEX`"):
        polyak.plan(recipe(tmp_path, "models: [./a, ./b]\nmethod: linear\n"))


def test_a_gradient_outside_the_layers_is_refused_by_name(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1))
    text = "models: [./a, ./b]\nmethod: linear\nsettings: {weight: {gradient: [0.2, 0.8]}}\n"
    with pytest.raises(errors.RecipeError, match=r"'embed_tokens\.weight' is in no layer"):
        polyak.plan(recipe(tmp_path, text))


def test_gradients_rules_and_precedence_come_out_as_numbers(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1))
    text = """
models:
  - {path: ./a, weight: 3}
  - ./b
method: linear
settings: {weight: {gradient: [0.2, 0.8], outside: 0.5}}
rules:
  - {match: 'layers\\.1', models: {b: {weight: 9}}}
"""
    steps = {step.out.name: step for step in polyak.plan(recipe(tmp_path, text)).steps}
    assert steps["embed_tokens.weight"].settings["weight"] == (3.0, 0.5)
    assert steps["layers.0.w"].settings["weight"] == (3.0, 0.2)
    assert steps["layers.1.w"].settings["weight"] == (3.0, 9.0)
    assert [steps[n].rule for n in ("layers.0.w", "layers.1.w")] == [None, 0]


def planned_with_rule(tmp_path: Path, rule: str, settings: str = "") -> polyak.Plan:
    models(tmp_path, base=tensors(), a=tensors(1), b=tensors(2))
    text = f"""
base: ./base
models: [{{path: ./a, weight: 0.7, density: 0.3}}, {{path: ./b, weight: 0.1}}]
method: ties
settings: {{density: 0.9, scale: 0.8{settings}}}
rules: [{{match: embed, {rule}}}]
"""
    return polyak.plan(recipe(tmp_path, text))


def test_a_rule_with_another_method_keeps_weights_and_starts_from_its_defaults_in_all_else(tmp_path):
    plan = planned_with_rule(tmp_path, "method: dare_ties")
    step = plan.steps[0]
    assert step.method is not None and step.method.name == "dare_ties"
    assert step.settings["weight"] == (0.7, 0.1)
    defaults = {name: step.method.settings[name].default for name in ("density", "scale")}
    assert (step.settings["density"], step.settings["scale"]) == ((defaults["density"],) * 2, defaults["scale"])
    note = "note: rule 1 ('embed') changes the method from ties to dare_ties: density, scale dropped, weights are kept."
    assert note in plan.explain() and note.removeprefix("note: ") in plan.notes


def test_a_rule_whose_method_has_no_weights_drops_them_and_says_so(tmp_path):
    models(tmp_path, a=tensors(1), b=tensors(2))
    text = "models: [{path: ./a, weight: 2}, ./b]\nmethod: linear\nrules: [{match: embed, method: median}]\n"
    plan = polyak.plan(recipe(tmp_path, text))
    assert dict(plan.steps[0].settings) == {}
    assert plan.notes == ("rule 1 ('embed') changes the method from linear to median: weight dropped.",)


def test_weights_under_settings_are_kept_as_those_of_the_models_are(tmp_path):
    models(tmp_path, base=tensors(), a=tensors(1), b=tensors(2))
    for weight, expected in (("0.3", (0.3, 0.3)), ("[0.3, 0.4]", (0.3, 0.4))):
        text = (
            f"base: ./base\nmodels: [./a, ./b]\nmethod: ties\nsettings: {{weight: {weight}}}\n"
            "rules: [{match: embed, method: task_arithmetic}]\n"
        )
        plan = polyak.plan(recipe(tmp_path, text))
        assert (plan.steps[0].settings["weight"], plan.notes) == (expected, ())


def test_a_rule_that_changes_the_method_may_set_weights_of_its_own(tmp_path):
    assert planned_with_rule(tmp_path, "method: linear, settings: {weight: 1}").steps[0].settings["weight"] == (1, 1)
    own = planned_with_rule(tmp_path, "method: linear, models: {b: {weight: 5}}")
    assert own.steps[0].settings["weight"] == (0.7, 5)


def test_settings_that_a_rule_sets_again_are_not_called_dropped(tmp_path):
    (note,) = planned_with_rule(tmp_path, "method: dare_ties, settings: {density: 0.5}").notes
    assert "ties to dare_ties: scale dropped, weights are kept." in note


def test_a_gradient_of_weights_without_outside_names_the_remedy(tmp_path):
    models(tmp_path, base=tensors(), a=tensors(1), b=tensors(2))
    text = (
        "base: ./base\nmodels: [./a, ./b]\nmethod: ties\nsettings: {weight: {gradient: [0, 1]}}\n"
        "rules: [{match: embed, method: linear%s}]\n"
    )
    with pytest.raises(errors.RecipeError, match=r"'weight' is a gradient.*Give it a rule of its own"):
        polyak.plan(recipe(tmp_path, text % ""))
    assert polyak.plan(recipe(tmp_path, text % ", settings: {weight: 1}")).steps


def test_a_model_of_weight_zero_is_not_read(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1), c=tensors(2))
    text = "models: [./a, {path: ./b, weight: 0}, ./c]\nmethod: linear\n"
    assert [r.model for r in polyak.plan(recipe(tmp_path, text)).steps[0].reads] == ["a", "c"]


def test_a_model_may_not_be_called_base(tmp_path):
    models(tmp_path, base=tensors(), a=tensors(1))
    with pytest.raises(errors.RecipeError, match="base"):
        polyak.plan(recipe(tmp_path, "base: ./a\nmodels: [./base]\nmethod: task_arithmetic\n"))


def test_skipped_tensors_keep_the_base_and_heads_stay_with_their_model(tmp_path):
    heads = {name: np.full((2, 4), i, BF16) for i, name in enumerate(("a", "b"), 1)}
    models(tmp_path, base=tensors(), a=tensors(1) | {"head.w": heads["a"]}, b=tensors(2) | {"head.w": heads["b"]})
    text = "base: ./base\nmodels: [./a, ./b]\nmethod: linear\nskip: embed\nheads: ^head\n"
    out = merged(tmp_path, text)
    assert out.read("embed_tokens.weight").tobytes() == tensors()["embed_tokens.weight"].tobytes()
    assert "head.w" not in out.specs
    for name, head in heads.items():
        assert (
            polyak.open(tmp_path / "out" / "heads" / f"{name}.safetensors").read("head.w").tobytes() == head.tobytes()
        )


def test_integer_buffers_are_copied_if_equal_and_else_need_a_word(tmp_path):
    models(tmp_path, a=tensors(ids=np.arange(4)), b=tensors(1, ids=np.arange(4)))
    assert merged(tmp_path, "models: [./a, ./b]\nmethod: linear\n").read("ids").tolist() == [0, 1, 2, 3]
    models(tmp_path, b=tensors(1, ids=np.arange(4) + 1))
    with pytest.raises(errors.Mismatch, match="buffers: first"):
        run(polyak.plan(recipe(tmp_path, "models: [./a, ./b]\nmethod: linear\n")), tmp_path / "no")
    run(polyak.plan(recipe(tmp_path, "models: [./a, ./b]\nmethod: linear\nbuffers: last\n")), tmp_path / "last")
    assert polyak.open(tmp_path / "last").read("ids").tolist() == [1, 2, 3, 4]


def test_a_head_tied_in_some_models_only_is_written_and_the_config_says_so(tmp_path):
    tied, untied = {"tie_word_embeddings": True, "vocab_size": 10}, {"tie_word_embeddings": False, "vocab_size": 10}
    head = np.ones((10, 4), BF16)
    write_model(tmp_path / "a", tensors(), tied)
    write_model(tmp_path / "b", tensors(1) | {"lm_head.weight": head}, untied)
    out = merged(tmp_path, "models: [./a, ./b]\nmethod: linear\n")
    embedding = tensors()["embed_tokens.weight"].astype(np.float32)
    assert out.read("lm_head.weight").tobytes() == ((embedding + 1) / 2).astype(BF16).tobytes()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_the_result_takes_the_asked_dtype_and_the_config_follows(tmp_path):
    models(tmp_path, a=tensors(), b=tensors(1))
    out = merged(tmp_path, "models: [./a, ./b]\nmethod: linear\ndtype: float16\n")
    assert {spec.dtype.name for spec in out.specs.values()} == {"F16"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"


def test_quantised_models_are_refused_by_name(tmp_path):
    write_model(tmp_path / "a", tensors(), {"quantization_config": {"bits": 4}})
    with pytest.raises(errors.UnsupportedFormat, match="quantised"):
        polyak.plan(recipe(tmp_path, "models: [./a]\nmethod: linear\n"))


def test_a_plan_of_many_tensors_explains_itself(tmp_path):
    family = random_family()
    for name, contents in family.items():
        write_model(tmp_path / name, contents)
    rules = "[{match: norm, method: linear}, {match: nowhere}]"
    text = f"base: ./base\nmodels: [./m0, ./m1]\nmethod: ties\nrules: {rules}\n"
    said = polyak.plan(recipe(tmp_path, text)).explain()
    for part in (
        "8 tensors",
        "rule 1 ('norm'): linear",
        "rule 2 ('nowhere') matches no tensor",
        "config and tokenizer from base",
    ):
        assert part in said
