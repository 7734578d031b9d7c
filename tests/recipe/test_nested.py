"""Recipes inside recipes."""

import pytest

from polyak.errors import RecipeError
from polyak.recipe import Lora, dump, load, loads, read


def test_a_recipe_in_place_shares_its_folder():
    recipe = loads("models: [a, {recipe: {models: [b, c], method: linear}, name: d}]\nmethod: linear", "here")
    inner = recipe.models[1].source.recipe
    assert inner is not None
    assert [m.source.path for m in inner.models] == ["b", "c"]
    assert inner.folder == recipe.folder


def test_a_recipe_in_a_file_is_read_relative_to_the_outer_recipe(write):
    write("sub/deep/inner.yaml", "base: /abs\nmodels: [./b, {path: ../c, lora: l}, 'hf://x/y']\nmethod: linear")
    write("sub/middle.yaml", "models: [{recipe: deep/inner.yaml}]\nmethod: linear\nbase: {recipe: deep/inner.yaml}")
    outer = load(write("outer.yaml", "models: [{recipe: sub/middle.yaml}]\nmethod: linear"))
    middle = outer.models[0].source.recipe
    assert middle is not None and middle.base is not None
    inner = middle.models[0].source.recipe
    assert inner is not None and inner.base is not None
    assert outer.models[0].name == "middle"
    assert [m.source.path for m in inner.models] == ["sub/deep/b", "sub/deep/../c", "hf://x/y"]
    assert inner.models[1].source.lora == (Lora("sub/deep/l"),)
    assert inner.base.path == "/abs"
    assert middle.base.recipe == inner
    assert inner.folder == outer.folder
    assert loads(dump(outer), outer.folder) == outer


def test_a_nested_file_may_be_mergekits(write):
    write("sub/mk.yml", "merge_method: linear\nmodels: [{model: x, parameters: {weight: 1}}]")
    write("sub/x/config.json", "{}")
    outer = load(write("outer.yaml", "models: [{recipe: sub/mk.yml}]\nmethod: linear"))
    inner = outer.models[0].source.recipe
    assert inner is not None
    assert inner.models[0].source.path == "sub/x"


def test_a_circle_of_recipes_is_refused(write, assert_refused):
    write("b.yaml", "models: [{recipe: ./sub/../a.yaml}]\nmethod: linear")
    (write("sub/x", "").parent / "x").unlink()
    a = write("a.yaml", "models: [{recipe: b.yaml}]\nmethod: linear")
    assert_refused(a, "b.yaml: models[0].recipe is circular", "a.yaml is being read already")


def test_a_recipe_that_holds_itself_is_refused():
    circle: dict[str, object] = {"method": "linear"}
    circle["models"] = [{"recipe": circle, "name": "x"}]
    with pytest.raises(RecipeError, match="recipes may be 16 levels deep"):
        read(circle)


def test_recipes_that_double_at_every_level_are_refused(write, assert_refused):
    for i in range(14):
        names = "".join(f"{{recipe: r{i + 1}.yaml, name: n{j}}}, " for j in range(2))
        write(f"r{i}.yaml", f"models: [{names}]\nmethod: linear")
    write("r14.yaml", "models: [a]\nmethod: linear")
    assert_refused(write("top.yaml", "models: [{recipe: r0.yaml}]\nmethod: linear"), "is nested too far", "1000")


def test_problems_of_a_nested_recipe_are_placed(write, assert_refused):
    assert_refused(
        "models: [{name: x, recipe: {models: [a], method: liner}}]\nmethod: linear", "models[0].recipe.method"
    )
    write("inner.yaml", "models: [a]\nmethod: linear\nsede: 1")
    assert_refused(write("o.yaml", "models: [{recipe: inner.yaml}]\nmethod: linear"), "inner.yaml: sede is an unknown")
    assert_refused("models: [{recipe: not/there.yaml}]\nmethod: linear", "there.yaml cannot be read: No such file")
    assert_refused("models: [{recipe: 'hf://a/b.yaml'}]\nmethod: linear", "models[0].recipe must be the path")
    assert_refused("models: [{recipe: 3, name: x}]\nmethod: linear", "models[0].recipe must be text")
