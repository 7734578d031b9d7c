"""Plans with other numbers, made from a plan: the same as plans that are made from the beginning."""

from __future__ import annotations

import numpy as np
import pytest

from polyak import checkpoint, planning, recipe
from polyak.errors import SettingError

SHAPES = {"embed.weight": (7, 4), "layers.0.w": (4, 4), "layers.1.w": (4, 4), "layers.1.count": ()}


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    state["layers.1.count"] = np.array(3)
    return {name: checkpoint.open(state) for name in ("base", "a", "b")}


def read(method, a=1.0, b=1.0, **more):
    models = [{"path": "./a", "weight": a}, {"path": "./b", "weight": b}]
    return recipe.read({"base": "./base", "models": models, "method": method, **more})


RECIPES = {
    "weights": [read("linear", 0.3, w) for w in (0.1, 0.9)],
    "a gradient over layers": [
        read("task_arithmetic", settings={"scale": {"gradient": [0, top], "outside": out}})
        for top, out in ((1, 2), (3, 4))
    ],
    "rules": [read("ties", rules=[{"match": "embed", "settings": {"density": d}}]) for d in (0.2, 0.7)],
    "words": [read("ties", settings={"topk": t}) for t in ("official", "exact")],
}


@pytest.mark.parametrize("recipes", RECIPES.values(), ids=list(RECIPES))
def test_a_plan_with_other_numbers_is_the_plan_of_the_recipe_that_has_them(given, recipes):
    one, other = recipes
    wanted = planning.plan(other, given)
    found = planning.with_numbers(planning.plan(one, given), other)
    assert found is not None
    assert found.steps == wanted.steps
    assert found.steps != planning.plan(one, given).steps
    assert (found.recipe, found.parts, found.digest) == (wanted.recipe, wanted.parts, wanted.digest)


def test_a_model_that_need_not_be_read_or_is_read_again_takes_a_new_plan(given):
    both, one = read("linear", 0.3, 0.1), read("linear", 0.3, 0.0)
    assert planning.with_numbers(planning.plan(both, given), one) is None
    assert planning.with_numbers(planning.plan(one, given), both) is None


def test_a_plan_of_parts_takes_a_new_plan(given):
    cut = "method: linear\nslices: [{models: [{path: ./a, layers: [0, 1]}]}, {models: [{path: ./b, layers: [1, 2]}]}]"
    parts = recipe.loads(cut)
    opened = {name: given[name] for name in ("a", "b")}
    assert planning.with_numbers(planning.plan(parts, opened), parts) is None


def test_a_rule_of_another_method_at_other_tensors_takes_a_new_plan(given):
    one, other = (read("ties", rules=[{"match": match, "method": "linear"}]) for match in ("embed", "layers"))
    assert planning.with_numbers(planning.plan(one, given), other) is None


def test_numbers_that_do_not_fit_are_refused_as_ever(given):
    with pytest.raises(SettingError, match="sum to zero"):
        planning.with_numbers(planning.plan(read("linear", 0.3, 0.1), given), read("linear", 0.3, -0.3))
