"""LiNeS: a straight line over the depth, for any continuous setting."""

from __future__ import annotations

import numpy as np
import pytest

import polyak
from polyak.engine import run_in_memory
from polyak.errors import RecipeError, SettingError
from polyak.planning import plan as plan_recipe
from polyak.recipe import Gradient, dump, loads

LAYERS = 5
FAMILY = "base: ./base\nmodels: [./m0, ./m1]\nmethod: {method}\nsettings: {{{settings}}}\n"


def family(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    names = ["embed", *(f"layers.{i}.w" for i in range(LAYERS)), "norm"]
    base = {name: rng.standard_normal(40).astype(np.float32) for name in names}
    moved = [{n: t + rng.standard_normal(40).astype(np.float32) for n, t in base.items()} for _ in range(2)]
    return {"base": base, "m0": moved[0], "m1": moved[1]}


def planned(method: str, settings: str, models: dict[str, dict[str, np.ndarray]]) -> polyak.Plan:
    recipe = loads(FAMILY.format(method=method, settings=settings))
    return plan_recipe(recipe, {name: polyak.open(tensors) for name, tensors in models.items()})


def numbers(plan: polyak.Plan, setting: str) -> dict[str, float]:
    return {step.out.name: step.settings[setting] for step in plan.steps}


def test_layers_go_from_alpha_to_alpha_and_beta_and_the_rest_has_alpha():
    found = numbers(planned("task_arithmetic", "scale: {lines: {alpha: 0.25, beta: 0.5}}", family()), "scale")
    assert found == {"embed": 0.25, "norm": 0.25} | {f"layers.{i}.w": 0.25 + 0.5 * i / 4 for i in range(LAYERS)}


def test_without_beta_the_last_layer_has_one():
    found = numbers(planned("task_arithmetic", "scale: {lines: {alpha: 0.3}}", family()), "scale")
    assert found["layers.4.w"] == 1
    assert found["embed"] == 0.3


def test_lines_are_a_gradient_written_shorter():
    short = loads(FAMILY.format(method="ties", settings="scale: {lines: {alpha: 0.5, beta: 0.25}}"))
    assert short.settings["scale"] == Gradient((0.5, 0.75), outside=0.5)
    assert loads(dump(short)) == short


def test_a_case_may_be_lines():
    settings = "scale: {cases: [{match: layers, value: {lines: {alpha: 0.5, beta: 0.5}}}, {match: embed, value: 2}]}"
    found = numbers(planned("ties", settings, family()), "scale")
    assert (found["embed"], found["layers.0.w"], found["layers.4.w"]) == (2, 0.5, 1)


@pytest.mark.parametrize("method", ["ties", "consensus", "pcb", "task_arithmetic", "dare_linear", "breadcrumbs"])
def test_the_merged_delta_is_scaled_by_depth_and_nothing_else_changes(method: str):
    """Also where a method ranks over the whole model: layers with another scale are ranked together still."""
    models = family()
    over = {"ties": ", granularity: model", "consensus": ", of: ties, granularity: model"}.get(method, "")
    whole = run_in_memory(planned(method, f"scale: 1.0{over}", models))
    sloped = run_in_memory(planned(method, f"scale: {{lines: {{alpha: 0.5, beta: 1.5}}}}{over}", models))
    for name, scale in numbers(planned(method, "scale: {lines: {alpha: 0.5, beta: 1.5}}", models), "scale").items():
        base = models["base"][name]
        np.testing.assert_allclose(sloped[name] - base, scale * (whole[name] - base), rtol=1e-4, atol=1e-6)


def test_the_weight_of_one_model_may_be_lines():
    settings = "weight: [{lines: {alpha: 1, beta: 1}}, 0.5]"
    found = numbers(planned("task_arithmetic", settings, family()), "weight")
    assert [found[f"layers.{i}.w"] for i in range(LAYERS)] == [(1 + i / 4, 0.5) for i in range(LAYERS)]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ("scale: {lines: {beta: 1}}", RecipeError, "scale.lines has no 'alpha'"),
        ("scale: {lines: {alpha: 1, gamma: 2}}", RecipeError, "scale.lines.gamma is an unknown key"),
        ("scale: {lines: {alpha: auto}}", RecipeError, "scale.lines.alpha must be a number; got 'auto'"),
        ("scale: {lines: 3}", RecipeError, "scale.lines must be a mapping"),
        ("scale: {lines: {alpha: 1}, gradient: [1]}", RecipeError, "scale.gradient is an unknown key"),
        ("density: {lines: {alpha: 0.5, beta: 0.9}}", SettingError, "density.lines must be between 0 and 1; got 1.4"),
        ("topk: {lines: {alpha: 1}}", SettingError, "'topk' is not a continuous number"),
    ],
)
def test_wrong_lines_are_refused_with_their_place(settings: str, error: type[Exception], said: str):
    with pytest.raises(error, match=said):
        loads(FAMILY.format(method="ties", settings=settings))


def test_the_plan_says_what_is_scaled_and_how_far():
    text = planned("task_arithmetic", "scale: {lines: {alpha: 0.25, beta: 0.5}}", family()).explain()
    assert "scale=0.25..0.75" in text
