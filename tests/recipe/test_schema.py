"""The JSON schema says what the reader does."""

import copy
import json
from dataclasses import fields

import pytest

from polyak import methods
from polyak.errors import RecipeError
from polyak.recipe import Gradient, Lora, Model, Recipe, Rule, Source, Token, Vocabulary, read, schema

jsonschema = pytest.importorskip("jsonschema")
methods.load_all()

FULL = {
    "base": "./base",
    "models": [
        "./a",
        {"path": "./b", "name": "x", "lora": ["l", {"path": "m", "scale": 2}], "weight": 1, "key": "k"},
        {"recipe": {"models": ["c"], "method": "linear"}, "name": "y", "density": {"gradient": [0, 1], "outside": 0.5}},
        {"path": "./d", "lora": "l", "strip_prefix": "p", "weight": {"cases": [{"match": "a", "value": 1}]}},
    ],
    "method": "ties",
    "settings": {"density": [0.1, 0.2, 0.3, 0.4], "topk": "exact", "scale": {"lines": {"alpha": 0.5, "beta": 2}}},
    "rules": [
        {"match": "a", "layers": [0, 4], "settings": {"scale": 1}, "models": {"a": {"density": 0.1}}},
        {
            "match": "b",
            "method": "linear",
            "settings": {"normalize": False, "weight": 1},
            "models": {"x": {"weight": 1}},
        },
    ],
    "skip": "x",
    "heads": ["y", "z"],
    "buffers": "first",
    "dtype": "bfloat16",
    "seed": 7,
    "vocabulary": {
        "source": "union",
        "tokens": {"x": "zero", "y": {"source": "base", "token": "z", "force": True}},
        "pad_to_multiple_of": 64,
    },
    "chat_template": "auto",
    "provenance": {"anything": [1, {"x": None}]},
}

WRONG = {
    "top": lambda r: r.update(sede=1),
    "no method": lambda r: r.pop("method"),
    "no models": lambda r: r.update(models=[]),
    "unknown method": lambda r: r.update(method="tise"),
    "base": lambda r: r.update(base={"path": "x", "scale": 1}),
    "base and name": lambda r: r.update(base={"path": "x", "name": "n"}),
    "path and recipe": lambda r: r.update(base={"path": "x", "recipe": "y"}),
    "model": lambda r: r["models"][1].update(wieght=1),
    "model of another method": lambda r: r["models"][1].update(normalize=True),
    "lora": lambda r: r["models"][1].update(lora={"pth": "x"}),
    "nested": lambda r: r["models"][2]["recipe"].update(sede=1),
    "nested model": lambda r: r["models"][2]["recipe"]["models"].append({"path": "e", "density": 1}),
    "settings": lambda r: r["settings"].update(densty=1),
    "settings of another method": lambda r: r["settings"].update(normalize=True),
    "range": lambda r: r["settings"].update(density=1.5),
    "range in a list": lambda r: r["settings"].update(density=[0, 2, 0, 0]),
    "range in a gradient": lambda r: r["models"][2]["density"].update(gradient=[0, 2]),
    "range in a case": lambda r: r["settings"].update(density={"cases": [{"match": "x", "value": 2}]}),
    "word": lambda r: r["settings"].update(topk="exat"),
    "boolean for a number": lambda r: r["settings"].update(scale=True),
    "text for a number": lambda r: r["settings"].update(scale="1"),
    "gradient of words": lambda r: r["settings"].update(topk={"gradient": ["exact"]}),
    "lines": lambda r: r["settings"]["scale"]["lines"].update(gamma=1),
    "lines without alpha": lambda r: r["settings"]["scale"]["lines"].pop("alpha"),
    "gradient": lambda r: r["models"][2]["density"].update(outsid=1),
    "case": lambda r: r["models"][3]["weight"]["cases"][0].update(mach="x"),
    "rule": lambda r: r["rules"][0].update(layer=[0, 1]),
    "rule without match": lambda r: r["rules"][0].pop("match"),
    "layers": lambda r: r["rules"][0].update(layers=[0]),
    "settings of a rule": lambda r: r["rules"][0]["settings"].update(normalize=True),
    "settings of a rule's method": lambda r: r["rules"][1]["settings"].update(density=1),
    "model of a rule": lambda r: r["rules"][1]["models"]["x"].update(normalize=True),
    "model of a rule's method": lambda r: r["rules"][1]["models"]["x"].update(density=1),
    "skip": lambda r: r.update(skip=1),
    "heads": lambda r: r.update(heads=[]),
    "buffers": lambda r: r.update(buffers="middle"),
    "dtype": lambda r: r.update(dtype="bf16"),
    "seed": lambda r: r.update(seed=-1),
    "provenance": lambda r: r.update(provenance=[]),
    "vocabulary": lambda r: r["vocabulary"].update(rows="pad"),
    "vocabulary of nothing": lambda r: r.update(vocabulary={"pad_to_multiple_of": 8}),
    "padding": lambda r: r["vocabulary"].update(pad_to_multiple_of=0),
    "token": lambda r: r["vocabulary"]["tokens"]["y"].update(token_id=1),
    "layers of a model": lambda r: r["models"][1].update(layers=[1]),
    "models and slices": lambda r: r.update(slices=[{"models": ["a"]}]),
    "nothing to merge": lambda r: r.pop("models"),
}

PARTS = {
    "method": "linear",
    "modules": [
        {
            "match": "a",
            "slices": [{"models": [{"path": "a", "layers": [0, 2], "stack": "s"}], "method": "passthrough"}],
        },
        {"match": ["b", "c"], "models": [{"path": "b", "add_prefix": "x."}], "settings": {"normalize": False}},
    ],
    "base": "./base",
    "vocabulary": "pad",
}
WRONG_PARTS = {
    "settings beside": lambda r: r.update(settings={}),
    "no match": lambda r: r["modules"][0].pop("match"),
    "dtype of a slice": lambda r: r["modules"][0]["slices"][0].update(dtype="float32"),
    "setting of a slice": lambda r: r["modules"][0]["slices"][0].update(settings={"weight": 1}),
    "models and slices": lambda r: r["modules"][0].update(models=["a"]),
    "no models": lambda r: r["modules"][0]["slices"][0].pop("models"),
}


@pytest.fixture(scope="module")
def validator():
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.slow
def test_what_the_reader_takes_the_schema_takes(validator):
    read(FULL)
    validator.validate(FULL)


@pytest.mark.slow
def test_the_parts_that_the_reader_takes_the_schema_takes(validator):
    read(PARTS)
    validator.validate(PARTS)


@pytest.mark.parametrize("wrong", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_the_parts_that_the_reader_refuses_the_schema_refuses(wrong, validator):
    recipe = copy.deepcopy(PARTS)
    wrong(recipe)
    with pytest.raises(RecipeError):
        read(recipe)
    assert not validator.is_valid(recipe)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_the_reader_refuses_the_schema_refuses(wrong, validator):
    recipe = copy.deepcopy(FULL)
    wrong(recipe)
    with pytest.raises(RecipeError):
        read(recipe)
    assert not validator.is_valid(recipe)


def test_a_range_without_its_lower_end_excludes_it(validator):
    recipe = {"models": ["a"], "method": "dare_linear", "settings": {"density": 0}}
    assert not validator.is_valid(recipe)
    assert validator.is_valid({**recipe, "settings": {"density": 0.01}})


def test_every_method_has_its_settings_in_the_schema(validator):
    for method in methods.registry.values():
        found = validator.schema["$defs"][f"settings of {method.name}"]
        assert list(found["properties"]) == list(method.settings)
        for name, setting in method.settings.items():
            if setting.default is not methods.REQUIRED:
                recipe = {"models": ["a"], "method": method.name, "settings": {name: setting.default}}
                assert validator.is_valid(recipe), (method.name, name)


def test_settings_of_the_same_domain_share_a_definition():
    found = schema()
    assert found["$defs"]["settings of ties"]["properties"]["scale"] == {"$ref": "#/$defs/number"}
    assert len(json.dumps(found)) < 200_000, "editors load the schema at every start"


def test_every_field_is_described():
    found = schema()["$defs"]
    for cls, table in [
        (Recipe, found["Recipe"]),
        (Source, found["Source"]["anyOf"][1]),
        (Lora, found["Lora"]["anyOf"][1]),
        (Rule, found["Rule"]),
        (Vocabulary, found["Vocabulary"]["anyOf"][1]),
        (Token, found["Token"]["anyOf"][1]),
    ]:
        assert set(table["properties"]) == {f.name for f in fields(cls)} - {"folder", "door"}
        assert all(one["description"] for one in table["properties"].values())
    model = set(found["Model"]["anyOf"][1]["properties"])
    assert model >= {f.name for cls in (Source, Model) for f in fields(cls)} - {"source", "settings"}
    assert {f.name for f in fields(Gradient)} == {"values", "outside"}
