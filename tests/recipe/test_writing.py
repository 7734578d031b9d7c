"""Round trips and digests."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyak import methods
from polyak.errors import RecipeError
from polyak.recipe import Cases, Gradient, Model, Recipe, Source, digest, dump, load, loads, read

methods.load_all()

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
patterns = st.sampled_from([r"layers\.(\d+)", "mlp|attn", ".", "on", "1e5", "", "# x", "a: b"]).filter(bool)
paths = st.sampled_from(["./a", "b/c", "/abs/d", "hf://org/e@main", "on", "2024", "~x", "'q'"])


def scalars(setting):
    if isinstance(setting.kind, tuple):
        return st.sampled_from(setting.kind)
    if setting.kind is str:
        return st.sampled_from(["a", "b|c"])
    if setting.kind is bool:
        return st.booleans()
    low, high = (setting.range.low, setting.range.high) if setting.range else (-1e6, 1e6)
    if setting.kind is int:
        return st.integers(int(max(low, -99)), int(min(high, 99)))
    exclusive = bool(setting.range and setting.range.above)
    return st.floats(low, min(high, 1e38), exclude_min=exclusive, allow_infinity=False)


def values(setting):
    leaf = scalars(setting)
    if setting.kind is float:
        gradient = st.fixed_dictionaries(
            {"gradient": st.lists(leaf, min_size=1, max_size=3)}, optional={"outside": leaf}
        )
        leaf |= gradient
    case = st.fixed_dictionaries({"match": patterns, "value": leaf})
    return leaf | st.fixed_dictionaries({"cases": st.lists(case, min_size=1, max_size=2)})


def tables(found):
    return st.fixed_dictionaries({}, optional={s.name: values(s) for s in found})


def per_model(method):
    return [s for s in method.settings.values() if s.per_model]


@st.composite
def recipes(draw, depth=1):
    method = draw(st.sampled_from(sorted(methods.registry.values(), key=lambda m: m.name)))
    names = draw(st.lists(texts, min_size=1, max_size=3, unique=True))

    def source():
        if depth and draw(st.booleans()):
            return {"recipe": draw(recipes(depth - 1))}
        lora = st.lists(
            paths | st.fixed_dictionaries({"path": paths, "scale": st.floats(-9, 9)}), min_size=1, max_size=2
        )
        return {"path": draw(paths), **draw(st.fixed_dictionaries({}, optional={"lora": lora, "key": texts}))}

    def rule():
        other = draw(st.none() | st.sampled_from(sorted(methods.registry)))
        used = methods.registry[other] if other else method
        models = st.fixed_dictionaries({}, optional={name: tables(per_model(used)) for name in names})
        found = {"match": draw(patterns), "settings": draw(tables(used.settings.values())), "models": draw(models)}
        return {**found, **({"method": other} if other else {})}

    optional = {
        "skip": patterns,
        "heads": patterns,
        "buffers": st.sampled_from(["first", "last"]),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
        "seed": st.integers(0, 2**64 - 1),
        "provenance": st.dictionaries(texts, st.none() | texts | st.lists(st.floats(-9, 9)), max_size=2),
    }
    return {
        "models": [{"name": name, **source(), **draw(tables(per_model(method)))} for name in names],
        "method": method.name,
        "settings": draw(tables(method.settings.values())),
        "rules": [rule() for _ in range(draw(st.integers(0, 2)))],
        **({"base": source()} if draw(st.booleans()) else {}),
        **draw(st.fixed_dictionaries({}, optional=optional)),
    }


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipes())
def test_a_recipe_survives_dump_and_load(data):
    recipe = read(data, "here")
    again = loads(dump(recipe), "there")
    assert again == recipe
    assert dump(again) == dump(recipe)
    assert digest(again) == digest(recipe)
    assert len(digest(recipe)) == 32


KEYS = [
    "base", "models", "method", "settings", "rules", "skip", "heads", "seed", "dtype", "provenance", "path", "recipe",
    "lora", "weight", "gradient", "cases", "match", "value", "layers", "merge_method", "parameters", "model", "filter",
    "base_model", "t", "density", "tokenizer_source", "a",
]  # fmt: skip
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*KEYS, "linear", "ties", "(", "", "x/y", "+"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    junk, st.sampled_from([{}, {"method": "linear"}, {"method": "ties", "models": ["a"]}, {"merge_method": "linear"}])
)
def test_any_data_is_read_or_refused(data, known):
    data = {**data, **known} if isinstance(data, dict) else data
    try:
        found = read(data)
    except RecipeError as error:
        assert str(error)
    else:
        assert isinstance(found, Recipe)


def test_the_digest_does_not_depend_on_spelling_or_folder(write):
    one = loads("models: [./a, ./b]\nmethod: linear\nsettings: {weight: 1, normalize: true}", "x")
    two = loads(
        '{"method": "linear", "seed": 0, "settings": {"normalize": true, "weight": 1.0e0},\n'
        ' "models": [{"path": "./a", "name": "a"}, "./b"]}',
        "y",
    )
    assert one == two
    assert digest(one) == digest(two)


def test_the_digest_is_the_same_in_every_version():
    recipe = loads("models: [./a, {path: ./b, weight: 0.5}]\nmethod: linear\nseed: 7")
    assert digest(recipe) == "3a16e2d52c748f085ab457f4e1f33f1d"


@pytest.mark.parametrize(
    "change",
    [
        {"models": ["b", "a"]},
        {"models": ["a", {"path": "b", "weight": 1}]},
        {"models": ["a", {"path": "b", "name": "c"}]},
        {"base": "c"},
        {"settings": {"normalize": False}},
        {"rules": [{"match": "x"}]},
        {"skip": "x"},
        {"heads": "x"},
        {"buffers": "last"},
        {"dtype": "float16"},
        {"seed": 1},
        {"provenance": {"x": 1}},
    ],
)
def test_the_digest_changes_with_everything_that_is_said(change):
    plain = {"models": ["a", "b"], "method": "linear"}
    assert digest(read({**plain, **change})) != digest(read(plain))


def test_the_numbers_of_numpy_are_written_as_numbers():
    model = Model("a", Source("a"), {"weight": np.float64(0.5)})
    other = Model("b", Source("b"), {"weight": Gradient((np.float32(1), np.int64(2)), outside=np.float64(0.25))})
    recipe = Recipe("linear", (model, other), seed=np.uint64(3))  # type: ignore[arg-type]
    again = loads(dump(recipe))
    assert again.models[0].settings == {"weight": 0.5}
    assert again.models[1].settings == {"weight": Gradient((1.0, 2.0), outside=0.25)}
    assert again.seed == 3
    assert digest(again) == digest(recipe)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"x"])
def test_what_no_file_can_hold_is_not_written(value):
    recipe = Recipe("linear", (Model("a", Source("a"), {"weight": value}),))
    for out in (dump, digest):
        with pytest.raises(RecipeError, match="a recipe cannot hold"):
            out(recipe)


def test_a_nested_recipe_of_another_folder_keeps_its_paths(tmp_path):
    inner = read({"models": ["./b", "hf://x/y"], "method": "linear"}, tmp_path)
    outer = Recipe("linear", (Model("a", Source(recipe=inner)),), folder=Path("elsewhere"))
    found = loads(dump(outer)).models[0].source.recipe
    assert found is not None
    assert [m.source.path for m in found.models] == [str(tmp_path / "b"), "hf://x/y"]


def test_equal_values_in_other_forms_are_told_apart():
    cases = Cases((("x", 1.0),))
    recipe = Recipe("linear", (Model("a", Source("a"), {"weight": cases}),))
    assert loads(dump(recipe)) == recipe


@pytest.mark.slow
def test_a_recipe_of_a_thousand_rules_loads_at_once(tmp_path):
    rules = [
        {"match": rf"layers\.{i}\.(self_attn|mlp)\.", "models": {"a": {"weight": i / 7}, "b": {"weight": 1 - i / 7}}}
        for i in range(1000)
    ]
    path = tmp_path / "r.yaml"
    path.write_text(dump(read({"models": ["a", "b"], "method": "linear", "rules": rules})))

    def seconds() -> float:
        re.purge()
        start = time.process_time()
        load(path)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.3


def test_importing_recipes_imports_nothing_heavy():
    heavy = ("numpy", "torch", "numba", "polyak.methods")
    code = f"import sys, polyak.recipe; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout


def test_a_rule_with_a_number_for_every_model_is_written_as_a_list():
    rule = {"match": "a", "models": {"x": {"weight": 0.25}, "y": {"weight": 0.5}}}
    some = {"match": "b", "models": {"x": {"weight": 0.25}}}
    both = {"match": "c", "settings": {"weight": 1.0}, "models": {"x": {"weight": 2.0}, "y": {"weight": 3.0}}}
    asked = read({"models": ["./x", "./y"], "method": "linear", "rules": [rule, some, both]}, Path())
    text = dump(asked)
    assert "weight: [0.25, 0.5]" in text
    assert loads(text, Path()) == asked
