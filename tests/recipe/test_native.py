"""polyak's own form: what it says, and what it refuses at every level."""

from pathlib import Path

import pytest

from polyak.errors import SettingError, UnknownMethod
from polyak.recipe import Cases, Gradient, Lora, Model, Recipe, Rule, Source, load, loads, read

TWO = "models: [./a, ./b]\n"


def test_everything_that_a_recipe_can_say():
    text = r"""
base: {path: ./base, key: state_dict, strip_prefix: module.}
models:
  - path: hf://org/maths@v2
    weight: 0.6
    density: {gradient: [0.1, 0.9], outside: 0.5}
  - path: ./code
    name: coder
    lora: [./adapter, {path: ./other, scale: 0.5}]
    weight: {cases: [{match: mlp, value: 1}, {match: attn, value: {gradient: [0, 1]}}]}
method: ties
settings: {density: 0.3, topk: exact}
rules:
  - match: layers
    layers: [0, 8]
    settings: {scale: 2}
    models: {coder: {weight: 3}}
  - match: head
    method: linear
    settings: {normalize: false}
skip: [rotary, 'inv_freq$']
heads: classifier
buffers: last
dtype: bfloat16
seed: 7
provenance: {trials: [1, 2.5, null, {best: true}]}
"""
    assert loads(text, "here") == Recipe(
        method="ties",
        models=(
            Model(
                "maths",
                Source("hf://org/maths@v2"),
                {"weight": 0.6, "density": Gradient((0.1, 0.9), outside=0.5)},
            ),
            Model(
                "coder",
                Source("./code", lora=(Lora("./adapter"), Lora("./other", 0.5))),
                {"weight": Cases((("mlp", 1.0), ("attn", Gradient((0.0, 1.0)))))},
            ),
        ),
        base=Source("./base", key="state_dict", strip_prefix="module."),
        settings={"density": 0.3, "topk": "exact"},
        rules=(
            Rule("layers", (0, 8), None, {"scale": 2.0}, {"coder": {"weight": 3.0}}),
            Rule("head", None, "linear", {"normalize": False}),
        ),
        skip="rotary|inv_freq$",
        heads="classifier",
        buffers="last",
        dtype="bfloat16",
        seed=7,
        provenance={"trials": [1, 2.5, None, {"best": True}]},
    )
    assert loads(text, "here").folder == Path("here")


def test_a_file_knows_its_folder(write):
    assert load(write("sub/r.yaml", f"{TWO}method: linear")).folder.name == "sub"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("./math-expert", "math-expert"),
        ("a/b/", "b"),
        ("m.safetensors", "m.safetensors"),
        ("hf://org/model@main", "model"),
        ("s3://bucket/a/b", "b"),
    ],
)
def test_a_model_is_called_by_the_last_component_of_its_path(path, name):
    assert read({"models": [path], "method": "linear"}).models[0].name == name


@pytest.mark.parametrize("path", [".", "..", "/", "a/.."])
def test_a_path_without_a_name_needs_one(path, assert_refused):
    assert_refused(f"models: ['{path}']\nmethod: linear", "models[0] has no name", "`name:`")
    assert loads(f"models: [{{path: '{path}', name: n}}]\nmethod: linear").models[0].name == "n"


def test_a_list_in_settings_gives_one_value_a_model_and_the_models_own_value_wins():
    recipe = loads("models: [./a, {path: ./b, weight: 9}]\nmethod: linear\nsettings: {weight: [1, {gradient: [2, 3]}]}")
    assert [m.settings["weight"] for m in recipe.models] == [1.0, 9.0]
    assert "weight" not in recipe.settings
    recipe = loads(
        f"{TWO}method: linear\nrules: [{{match: x, settings: {{weight: [1, 2]}}, models: {{b: {{weight: 5}}}}}}]"
    )
    assert recipe.rules[0].models == {"a": {"weight": 1.0}, "b": {"weight": 5.0}}


def test_numbers_are_floats_however_they_are_written():
    recipe = loads("models: [{path: ./a, weight: 1}]\nmethod: ties\nsettings: {scale: 2}")
    assert isinstance(recipe.models[0].settings["weight"], float)
    assert isinstance(recipe.settings["scale"], float)


def test_the_settings_of_a_rule_are_those_of_its_own_method(assert_refused):
    rule = "rules: [{match: x, method: linear, settings: {normalize: false}}]"
    assert loads(f"{TWO}method: ties\n{rule}").rules[0].settings == {"normalize": False}
    assert_refused(f"{TWO}method: linear\nrules: [{{match: x, settings: {{density: 1}}}}]", "rules[0].settings.density")


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (f"{TWO}metod: linear", "has no 'method'", "Did you mean 'metod'?"),
        (f"{TWO}method: linear\nsetings: {{}}", "setings is an unknown key", "Did you mean 'settings'?"),
        (f"{TWO}method: linaer", "method: no merge method is called 'linaer'", "Did you mean 'linear'?"),
        ("model: [./a]\nmethod: linear", "has no 'models'", "Did you mean 'model'?"),
        (f"{TWO}method: ties\nsettings: {{densty: 1}}", "settings.densty is unknown", "Did you mean 'density'?"),
        (f"{TWO}method: ties\nsettings: {{topk: exat}}", "settings.topk must be one of", "Did you mean 'exact'?"),
        (
            "models: [{path: ./a, wieght: 1}]\nmethod: linear",
            "models[0].wieght is an unknown",
            "Did you mean 'weight'?",
        ),
        ("models: [{path: ./a, density: 1}]\nmethod: linear", "models[0].density is an unknown key", "Known: "),
        ("models: [{path: ./a, lora: {pth: x}}]\nmethod: linear", "models[0].lora has no 'path'", "mean 'pth'?"),
        (
            "models: [{path: ./a, lora: {path: x, scal: 1}}]\nmethod: linear",
            "models[0].lora.scal",
            "Did you mean 'scale'?",
        ),
        (f"{TWO}base: {{path: x, strip_prefx: y}}\nmethod: linear", "base.strip_prefx", "mean 'strip_prefix'?"),
        (f"{TWO}method: linear\nrules: [{{mach: x}}]", "rules[0] has no 'match'", "Did you mean 'mach'?"),
        (f"{TWO}method: linear\nrules: [{{match: x, layer: [0, 1]}}]", "rules[0].layer", "Did you mean 'layers'?"),
        (f"{TWO}method: linear\nrules: [{{match: x, method: tise}}]", "rules[0].method", "Did you mean 'ties'?"),
        (
            f"{TWO}method: linear\nrules: [{{match: x, models: {{c: {{}}}}}}]",
            "rules[0].models.c is not a model",
            "a, b",
        ),
        (
            "models: [./maths, ./code]\nmethod: linear\nrules: [{match: x, models: {mats: {weight: 1}}}]",
            "rules[0].models.mats is not a model",
            "Did you mean 'maths'?",
        ),
        (
            f"{TWO}method: linear\nrules: [{{match: x, models: {{a: {{normalize: true}}}}}}]",
            "rules[0].models.a.normalize is unknown",
            "weight",
        ),
        (
            f"{TWO}method: linear\nsettings: {{weight: {{gradiant: [1]}}}}",
            "settings.weight must be",
            "{gradient: [...]}",
        ),
        (
            f"{TWO}method: linear\nsettings: {{weight: {{gradient: [1], outsid: 1}}}}",
            "weight.outsid",
            "mean 'outside'?",
        ),
        (
            f"{TWO}method: linear\nsettings: {{weight: {{cases: [{{mach: a, value: 1}}]}}}}",
            "settings.weight.cases[0] has no 'match'",
            "mach",
        ),
        (
            f"{TWO}method: linear\nsettings: {{weight: {{cases: [{{match: a, value: 1, valu: 1}}]}}}}",
            "settings.weight.cases[0].valu",
            "Did you mean 'value'?",
        ),
    ],
    ids=lambda part: part[-50:],
)
def test_what_is_misspelt_is_refused_at_every_level(text, place, hint, assert_refused):
    assert_refused(text, "recipe: ", place, hint)


@pytest.mark.parametrize(
    ("text", "place", "wanted"),
    [
        ("[1, 2]", "the recipe must be a mapping", "got [1, 2]"),
        ("", "the recipe must be a mapping", "got nothing"),
        ("models: []\nmethod: linear", "models must be a list of one or more", "got []"),
        ("models: ./a\nmethod: linear", "models must be a list", "got './a'"),
        ("models: [3]\nmethod: linear", "models[0] must be a mapping", "got 3"),
        ("models: [{path: 2024}]\nmethod: linear", "models[0].path must be text", 'in quotes: "2024"'),
        ("models: [{path: ''}]\nmethod: linear", "models[0].path must be text", "got ''"),
        ('models: ["a\\0b"]\nmethod: linear', "models[0].path must be text without NUL", "got"),
        ("models: [{name: n}]\nmethod: linear", "models[0] must be given either `path:` or `recipe:`", "'neither'"),
        ("models: [{path: x, recipe: y}]\nmethod: linear", "models[0] must be given either", "'both'"),
        ("models: [a/x, b/x]\nmethod: linear", "models[1] and models[0] are both called 'x'", "`name:`"),
        (f"{TWO}method: 3", "method must be text", "got 3"),
        (f"{TWO}method: linear\nbase:", "base must be a mapping", "got nothing"),
        (f"{TWO}method: linear\nbase: {{path: x, name: y}}", "base.name is an unknown key", "Known: "),
        (f"{TWO}method: linear\nsettings: [1]", "settings must be a mapping", "got [1]"),
        (f"{TWO}method: linear\nsettings: {{weight: .nan}}", "settings.weight must be a finite number", "got nan"),
        (f"{TWO}method: linear\nsettings: {{weight: -.inf}}", "settings.weight must be a finite number", "got -inf"),
        (f"{TWO}method: linear\nsettings: {{weight: 1e999}}", "settings.weight must be a finite number", "got inf"),
        (f"{TWO}method: linear\nsettings: {{weight: true}}", "settings.weight must be a number", "got True"),
        (f"{TWO}method: linear\nsettings: {{weight: '1'}}", "settings.weight must be a number", "got '1'"),
        (f"{TWO}method: linear\nsettings: {{weight: }}", "settings.weight must be a number", "got nothing"),
        (f"{TWO}method: linear\nsettings: {{weight: {'9' * 30}}}", "settings.weight must be a finite", "64 bits"),
        (f"{TWO}method: linear\nsettings: {{weight: [1, x]}}", "settings.weight[1] must be a number", "got 'x'"),
        (
            f"{TWO}method: linear\nsettings: {{weight: [1]}}",
            "settings.weight must be one value for each of the 2",
            "[1]",
        ),
        (f"{TWO}method: linear\nsettings: {{normalize: 1}}", "settings.normalize must be true or false", "got 1"),
        (f"{TWO}method: linear\nsettings: {{normalize: [true]}}", "settings.normalize must be true or false", "[True]"),
        (f"{TWO}method: linear\nsettings: {{normalize: {{gradient: [1]}}}}", "normalize is a gradient", "continuous"),
        (f"{TWO}method: ties\nsettings: {{density: 1.5}}", "settings.density must be between 0 and 1", "got 1.5"),
        (
            f"{TWO}method: ties\nsettings: {{density: {{gradient: [0, 2]}}}}",
            "density.gradient[1] must be between",
            "2.0",
        ),
        (f"{TWO}method: ties\nsettings: {{density: {{gradient: [0], outside: -1}}}}", "density.outside must", "got -1"),
        (f"{TWO}method: ties\nsettings: {{density: {{gradient: []}}}}", "density.gradient must be a list", "got []"),
        (
            f"{TWO}method: ties\nsettings: {{density: {{gradient: [true]}}}}",
            "density.gradient[0] must be a number",
            "True",
        ),
        (
            f"{TWO}method: ties\nsettings: {{density: {{cases: [{{match: a, value: 7}}]}}}}",
            "density.cases[0].value must be between 0 and 1",
            "got 7",
        ),
        (
            f"{TWO}method: ties\nsettings: {{density: {{cases: [{{match: (, value: 1}}]}}}}",
            "density.cases[0].match must be a regular expression",
            "unterminated",
        ),
        ("models: [{path: a, weight: [1]}]\nmethod: linear", "models[0].weight must be a number", "got [1]"),
        ("models: [{path: a, lora: []}]\nmethod: linear", "models[0].lora must be a list of one or more", "[]"),
        ("models: [{path: a, lora: {path: b, scale: .nan}}]\nmethod: linear", "lora.scale must be a finite", "nan"),
        (f"{TWO}method: linear\nrules: {{match: x}}", "rules must be a list", "got {'match'"),
        (f"{TWO}method: linear\nrules: [{{match: '*x'}}]", "rules[0].match must be a regular expression", "repeat"),
        (f"{TWO}method: linear\nrules: [{{match: '[[a]'}}]", "rules[0].match must be a regular", "Possible nested set"),
        (f"{TWO}method: linear\nrules: [{{match: 'a{{99999999999999}}'}}]", "rules[0].match must be a", "too large"),
        (f"{TWO}method: linear\nrules: [{{match: '{'(' * 3000 + ')' * 3000}'}}]", "rules[0].match must", "too deeply"),
        (
            f"{TWO}method: linear\nrules: [{{match: x, layers: [2, 2]}}]",
            "rules[0].layers must be [first, stop)",
            "2, 2",
        ),
        (f"{TWO}method: linear\nrules: [{{match: x, layers: [0, -1]}}]", "rules[0].layers[1] must be an integer", "-1"),
        (f"{TWO}method: linear\nrules: [{{match: x, layers: 3}}]", "rules[0].layers must be [first, stop)", "got 3"),
        (f"{TWO}method: linear\nskip: '('", "skip must be a regular expression", "unterminated"),
        (f"{TWO}method: linear\nheads: [a, '(']", "heads[1] must be a regular expression", "unterminated"),
        (f"{TWO}method: linear\nbuffers: middle", "buffers must be one of first, last", "got 'middle'"),
        (f"{TWO}method: linear\ndtype: bfloat61", "dtype must be one of", "Did you mean 'bfloat16'?"),
        (f"{TWO}method: linear\nseed: -1", "seed must be an integer", "got -1"),
        (f"{TWO}method: linear\nseed: 1.0", "seed must be an integer", "got 1.0"),
        (f"{TWO}method: linear\nseed: true", "seed must be an integer", "got True"),
        (f"{TWO}method: linear\nseed: {2**64}", "seed must be an integer", "below 2^64"),
        (f"{TWO}method: linear\nprovenance: x", "provenance must be a mapping", "got 'x'"),
        (f"{TWO}method: linear\nprovenance: {{a: [.nan]}}", "provenance.a[0] must be a finite number", "nan"),
    ],
    ids=lambda part: part[-50:],
)
def test_what_is_wrong_is_refused_with_place_wanted_and_got(text, place, wanted, assert_refused):
    assert_refused(text, "recipe: ", place, wanted)


def test_messages_of_a_file_begin_with_it(write, assert_refused):
    path = write("r.yaml", f"{TWO}method: linear\nseed: x")
    assert assert_refused(path).startswith(f"{path}: seed must be")


def test_wrong_settings_and_methods_have_errors_of_their_own():
    with pytest.raises(SettingError):
        loads(f"{TWO}method: linear\nsettings: {{weight: x}}")
    with pytest.raises(SettingError):
        loads(f"{TWO}method: linear\nsettings: {{wieght: 1}}")
    with pytest.raises(UnknownMethod):
        loads(f"{TWO}method: linaer")


def test_python_data_of_other_kinds_is_refused(assert_refused):
    from polyak.errors import RecipeError

    circle: dict[str, object] = {}
    circle["again"] = circle
    for key, value, problem in [
        ("provenance", circle, "more than 64 levels"),
        ("provenance", {"x": object()}, "must be text"),
        ("provenance", {1: 2}, "whose keys are text"),
        ("seed", 10**6000, "a number of thousands of digits"),
        ("skip", "\ud800", "lone surrogate"),
        ("models", [b"x"], "must be a mapping"),
        ("settings", {"weight": 10**6000}, "64 bits"),
    ]:
        with pytest.raises(RecipeError, match=problem):
            read({"models": ["a"], "method": "linear", key: value})


def test_a_recipe_does_not_change_when_its_data_does():
    data = {"models": ["a"], "method": "linear", "settings": {"weight": 1}, "provenance": {"x": [1]}}
    recipe = read(data)
    data["settings"]["weight"] = 2
    data["provenance"]["x"].append(2)
    assert recipe.settings == {"weight": 1.0}
    assert recipe.provenance == {"x": [1]}
    with pytest.raises(TypeError):
        recipe.settings["weight"] = 3  # type: ignore[index]
