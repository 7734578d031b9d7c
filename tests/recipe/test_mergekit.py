"""mergekit's files as they are, with the defaults of that tool written out."""

from pathlib import Path

import pytest

from polyak import methods
from polyak.errors import UnknownMethod
from polyak.recipe import Cases, Gradient, Lora, Model, Source, Token, Vocabulary, dump, load, loads
from polyak.recipe.mergekit.methods import TRANSLATIONS
from polyak.recipe.mergekit.reader import _REFUSED

methods.load_all()

BASE_A_B = (
    "base_model: o/base\nmodels: [{model: o/a, parameters: {weight: 1}}, {model: o/b, parameters: {weight: 2}}]\n"
)
A_B = "models: [{model: o/a, parameters: {weight: 1}}, {model: o/b, parameters: {weight: 2}}]\n"


def paths(recipe):
    return [model.source.path for model in recipe.models]


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_every_translated_setting_exists(name):
    known = methods.resolve(name).settings
    translation = TRANSLATIONS[name]
    wanted = {p.setting for p in translation.parameters if p.setting} | set(translation.always)
    assert wanted <= set(known)
    for parameter in translation.parameters:
        if parameter.setting in known:
            assert parameter.default is None or known[parameter.setting].problem_with(parameter.default) is None
            assert known[parameter.setting].per_model is (parameter.per_model and name != "passthrough")
    for setting, value in translation.always.items():
        assert known[setting].problem_with(value) is None


def test_every_method_of_mergekit_is_translated():
    assert len(TRANSLATIONS) == 20


@pytest.mark.parametrize(
    ("method", "defaults"),
    [
        (
            "ties",
            {
                "density": 1.0,
                "function": "mean",
                "scale": 1.0,
                "topk": "exact",
                "granularity": "tensor",
                "zero_sum": "positive",
            },
        ),
        ("task_arithmetic", {"scale": 1.0, "normalize": False}),
        ("dare_linear", {"density": 1.0, "scale": 1.0, "normalize": False, "rescale": "l1"}),
        (
            "dare_ties",
            {"density": 1.0, "function": "sum", "scale": 1.0, "rescale": "l1", "trim": 1.0, "zero_sum": "positive"},
        ),
        (
            "breadcrumbs",
            {
                "density": 1.0,
                "gamma": 0.01,
                "scale": 1.0,
                "normalize": False,
                "rescale": "none",
                "granularity": "tensor",
            },
        ),
        ("model_stock", {"granularity": "tensor", "clamp": False}),
    ],
)
def test_the_defaults_of_mergekit_are_written_out(method, defaults):
    models = BASE_A_B.replace(", parameters: {weight: 1}", "").replace(", parameters: {weight: 2}", "")
    recipe = loads(f"merge_method: {method}\n{models if method == 'model_stock' else BASE_A_B}")
    rescale = {"rescale": "none"} if "rescale" in methods.resolve(method).settings else {}
    assert recipe.settings == {**rescale, **defaults}
    assert recipe.method == method
    assert recipe.base == Source("hf://o/base")


def test_parameters_keep_their_meaning():
    recipe = loads(
        f"merge_method: ties\n{BASE_A_B}"
        "parameters: {density: 0.4, normalize: off, lambda: 0.5, int8_mask: true}\ndtype: float16\n"
    )
    assert recipe.settings["density"] == 0.4
    assert recipe.settings["function"] == "sum"
    assert recipe.settings["scale"] == 0.5
    assert recipe.dtype == "float16"
    assert [m.settings for m in recipe.models] == [{"weight": 1.0}, {"weight": 2.0}]
    assert loads(dump(recipe)) == recipe


def test_out_dtype_beats_dtype():
    text = f"merge_method: linear\n{A_B}dtype: float32\nout_dtype: torch.bfloat16"
    assert loads(text).dtype == "bfloat16"


def test_gradients_have_their_first_value_outside_the_layers():
    recipe = loads("merge_method: linear\nmodels: [{model: o/a}]\nparameters: {weight: [0.25, 0.5, 1]}")
    assert recipe.settings["weight"] == Gradient((0.25, 0.5, 1.0), outside=0.25)
    recipe = loads("merge_method: linear\nmodels: [{model: o/a}]\nparameters: {weight: [3]}")
    assert recipe.settings["weight"] == 3.0


def test_filters_are_text_that_names_hold_and_the_first_wins():
    recipe = loads(
        "merge_method: linear\nmodels: [{model: o/a}]\n"
        "parameters: {weight: [{filter: layers.1., value: 1}, {filter: mlp, value: [0, 1]}, {value: 2}, "
        "{filter: x, value: 3}]}"
    )
    assert recipe.settings["weight"] == Cases(
        ((r"layers\.1\.", 1.0), ("mlp", Gradient((0.0, 1.0), outside=0.0)), (".*", 2.0))
    )


@pytest.mark.parametrize(
    "everything", ["{value: 2}", "[{value: 2}]", "{filter: '*', value: 2}", "{filter: null, value: 2}"]
)
def test_a_value_without_a_filter_is_for_all_tensors(everything):
    recipe = loads(f"merge_method: linear\nmodels: [{{model: o/a}}]\nparameters: {{weight: {everything}}}")
    assert recipe.settings["weight"] == 2.0


def test_what_no_filter_finds_falls_through_to_the_next_scope_and_then_to_the_default():
    recipe = loads(
        "merge_method: ties\nbase_model: o/base\nmodels:\n"
        "  - {model: o/a, parameters: {weight: 1, density: {filter: mlp, value: 0.1}}}\n"
        "  - {model: o/b, parameters: {weight: 1, density: []}}\n"
        "parameters: {density: [{filter: attn, value: 0.2}]}"
    )
    assert recipe.models[0].settings["density"] == Cases((("mlp", 0.1), ("attn", 0.2), (".*", 1.0)))
    assert "density" not in recipe.models[1].settings
    assert recipe.settings["density"] == Cases((("attn", 0.2), (".*", 1.0)))


def test_filters_may_choose_words():
    recipe = loads(f"merge_method: ties\n{BASE_A_B}parameters: {{normalize: [{{filter: mlp, value: false}}]}}")
    assert recipe.settings["function"] == Cases((("mlp", "sum"), (".*", "mean")))


def test_a_required_value_that_filters_do_not_reach_is_refused(assert_refused):
    models = (
        "merge_method: linear\nmodels: [{model: o/a, parameters: {weight: {filter: mlp, value: 1}}}, {model: o/b}]\n"
    )
    assert_refused(models, "models[1] has no 'weight'")
    assert_refused(
        models + "parameters: {weight: {filter: x, value: 1}}",
        "parameters.weight has no value for tensors",
        "value: ...",
    )
    assert loads(models + "parameters: {weight: 1}").models[0].settings["weight"] == Cases((("mlp", 1.0), (".*", 1.0)))


def test_the_base_may_be_listed_and_its_parameters_mean_nothing_there():
    models = "[{model: o/x%s}, {model: o/a, parameters: {weight: 1}}]"
    text = f"merge_method: task_arithmetic\nbase_model: o/x\nmodels: {models}"
    assert paths(loads(text % "")) == ["hf://o/a"]
    assert loads(text % ", parameters: {weight: 9, density: 0}") == loads(text % "")


def test_the_base_of_linear_is_a_model_like_any_other(assert_refused):
    recipe = loads(f"merge_method: linear\nbase_model: o/b\n{A_B}")
    assert paths(recipe) == ["hf://o/a", "hf://o/b"]
    assert recipe.base == Source("hf://o/b")
    recipe = loads("merge_method: linear\nbase_model: o/b\nmodels: [{model: o/a}]\nparameters: {weight: 1}")
    assert paths(recipe) == ["hf://o/a", "hf://o/b"]
    assert_refused(f"merge_method: linear\nbase_model: o/c\n{A_B}", "base_model has no 'weight'")


@pytest.mark.parametrize("models", ["[{model: o/b}, {model: o/a}]", "[{model: o/a}, {model: o/b}]", "[{model: o/b}]"])
def test_slerp_goes_from_the_base_to_the_other(models):
    recipe = loads(f"merge_method: slerp\nbase_model: o/a\nmodels: {models}\nparameters: {{t: [0, 0.5, 1]}}")
    assert paths(recipe) == ["hf://o/a", "hf://o/b"]
    assert recipe.settings == {"t": Gradient((0.0, 0.5, 1.0), outside=0.0)}


def test_the_gradient_of_the_slerp_example_is_understood():
    recipe = loads(
        "merge_method: slerp\nbase_model: o/a\nmodels: [{model: o/a}, {model: o/b}]\nparameters:\n"
        "  t:\n    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}\n    - {filter: mlp, value: [1, 0.5, 0]}\n"
        "    - value: 0.5\n"
    )
    found = recipe.settings["t"]
    assert isinstance(found, Cases)
    assert [match for match, _ in found.cases] == ["self_attn", "mlp", ".*"]


def test_filter_wise_model_stock_goes_by_rows():
    models = "base_model: o/base\nmodels: [{model: o/a}, {model: o/b}]"
    assert (
        loads(f"merge_method: model_stock\n{models}\nparameters: {{filter_wise: true}}").settings["granularity"]
        == "row"
    )


def test_passthrough_scales(assert_refused):
    scale = "[{filter: o_proj, value: 0}, {value: 1}]"
    text = f"merge_method: passthrough\nmodels: [{{model: o/a, parameters: {{scale: {scale}}}}}]"
    assert loads(text).settings["scale"] == Cases((("o_proj", 0.0), (".*", 1.0)))
    assert loads("merge_method: passthrough\nmodels: [{model: o/a}]").settings == {"scale": 1.0}
    assert_refused("merge_method: passthrough\nmodels: [{model: o/a}, {model: o/b}]", "exactly 1 model; got 2")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"merge_method: linear\n{A_B}paramters: {{}}", ["paramters is an unknown key", "Did you mean 'parameters'?"]),
        (f"merge_method: ties\n{BASE_A_B}base_modle: x", ["base_modle", "Did you mean 'base_model'?"]),
        (
            f"merge_method: ties\n{BASE_A_B}parameters: {{densty: 1}}",
            ["parameters.densty is unknown", "mean 'density'?"],
        ),
        ("merge_method: linear\nmodels: [{modle: x}]", ["models[0] has no 'model'", "Did you mean 'modle'?"]),
        (
            "merge_method: linear\nmodels: [{model: o/x, parameters: {wieght: 1}}]",
            ["parameters.wieght", "mean 'weight'?"],
        ),
        (
            "merge_method: linear\nmodels: [{model: o/x, layer_range: [0, 1]}]",
            ["models[0].layer_range is an unknown"],
        ),
        (
            f"merge_method: linear\n{A_B}parameters: {{weight: [{{fliter: a, value: 1}}]}}",
            ["weight[0].fliter", "'filter'"],
        ),
        (f"merge_method: linear\n{A_B}parameters: {{weight: [{{filter: a}}]}}", ["weight[0] has no 'value'"]),
        (
            f"merge_method: linear\n{A_B}parameters: {{weight: [1, {{value: 1}}]}}",
            ["weight[0] must be a mapping; got 1"],
        ),
        (f"merge_method: linear\n{A_B}parameters: {{weight: x}}", ["parameters.weight must be a number; got 'x'"]),
        (f"merge_method: linear\n{A_B}parameters: {{weight: .nan}}", ["parameters.weight must be a finite number"]),
        (
            f"merge_method: linear\n{A_B}parameters: {{normalize: maybe}}",
            ["parameters.normalize must be true or false"],
        ),
        (
            f"merge_method: linear\n{A_B}parameters: {{normalize: [true, false]}}",
            ["normalize is a gradient, which only numbers"],
        ),
        (f"merge_method: ties\n{BASE_A_B}parameters: {{density: 1.5}}", ["parameters.density must be between 0 and 1"]),
        (f"merge_method: ties\n{A_B}", ["has no 'base_model'", "'ties'"]),
        ("merge_method: ties\nbase_model: o/a\nmodels: [{model: o/a}]", ["models", "got 0"]),
        ("merge_method: linear\nmodels: [{model: o/a}, {model: o/a}]", ["models[1] is listed twice"]),
        ("merge_method: linear\nmodels: [{model: o/a}]", ["models[0] has no 'weight'", "'linear'"]),
        (
            "merge_method: linear\nmodels: [{model: o/a, parameters: {weight: 1}}, "
            "{model: o/a, parameters: {weight: 1}}]",
            ["models[1] is listed twice"],
        ),
        (
            "merge_method: linear\nslices: [{sources: [{model: o/a, layer_range: [0, 1], parameters: {weight: 1}}, "
            "{model: o/a, layer_range: [1, 2], parameters: {weight: 1}}]}]",
            ["slices[0].sources[1] takes other layers", "a slice of its own", "polyak's own form"],
        ),
        (f"merge_method: linear\n{A_B}normalize: true", ["normalize is a parameter", "below `parameters:`"]),
        ("merge_method: linear\nmodels: [{model: o/a, weight: 1}]", ["models[0].weight is a parameter"]),
        (
            "merge_method: linear\nslices: [{sources: [{model: o/a, layer_range: [0, 1]}], weight: 1}]",
            ["slices[0].weight is a parameter"],
        ),
        (
            "merge_method: linear\nmodules: {decoder: {models: [{model: o/a}], weight: 1}}",
            ["modules.decoder.weight is a parameter"],
        ),
        ("merge_method: linear\nmodels: []", ["models must be a list of one or more"]),
        ("merge_method: linear", ["has no 'models'"]),
        (f"merge_method: linear\n{A_B}dtype: int64", ["dtype must be one of float16, bfloat16, float32, float64"]),
        (
            "merge_method: ties\nbase_model: o/base\nmodels: [{model: o/a, parameters: {weight: 1, normalize: false}}]",
            ["models[0].parameters.normalize has no effect in mergekit", "Move it"],
        ),
        (f"merge_method: linear\n{A_B}slices: []", ["one of models, slices and modules; got 'models and slices'"]),
        (f"merge_method: linear\n{A_B}modules: {{}}", ["one of models, slices and modules; got 'models and modules'"]),
        ("merge_method: passthrough\nslices: []", ["slices must be a list of one or more"]),
        ("merge_method: passthrough\nmodules: {}", ["modules must be a mapping of one or more modules"]),
        (
            f"merge_method: linear\n{A_B}tokenizer: {{source: o/c}}",
            ["tokenizer.source is 'o/c'", "not a model of this"],
        ),
        (
            f"merge_method: linear\n{A_B}tokenizer: {{}}\ntokenizer_source: union",
            ["one of tokenizer and tokenizer_source"],
        ),
        (
            f"merge_method: linear\n{A_B}tokenizer: {{tokens: {{x: {{source: {{kind: model_token, model: o/a}}}}}}}}",
            ["tokenizer.tokens.x.source must be given either token or token_id; got 'neither'"],
        ),
        (f"merge_method: linear\n{A_B}tokenizer: {{tokens: {{x: {{force: true}}}}}}", ["tokens.x has no 'source'"]),
        ("genome: {}\ntasks: []", ["genome cannot be used: mergekit-evolve"]),
        ("base_model: x\ngate_mode: hidden\nexperts: []", ["gate_mode cannot be used: mergekit-moe"]),
        ("base_model: x\nexperts: []", ["experts cannot be used: mergekit-moe"]),
        (
            f"merge_method: linear\n{A_B}tokenizer_source: base",
            ["tokenizer_source is 'base', but there is no base_model"],
        ),
        (f"merge_method: linear\n{A_B}tokenizer_source: o/c", ["tokenizer_source is 'o/c', which is not a model"]),
        ("merge_method: linear\nmodels: [{model: {model: o/a, override_architecture: X}}]", ["override_architecture"]),
        (
            "merge_method: linear\nmodels: [{model: {modl: o/a}}]",
            ["models[0].model has no 'model'", "Did you mean 'modl'?"],
        ),
        ("merge_method: linear\nmodels: [{model: {model: {path: o/a, rev: x}}}]", ["models[0].model.model.rev"]),
        ("merge_method: linear\nmodels: [{model: 3}]", ["models[0].model must be text"]),
        ("merge_method: linear\nmodels: [{model: ./x@v1}]", ["only models on the Hub", "have revisions"]),
        ("merge_method: linear\nmodels: [{model: +}]", ["models[0].model must be text that is not empty; got ''"]),
    ],
    ids=lambda part: part[:60] if isinstance(part, str) else None,
)
def test_what_is_wrong_or_not_supported_is_refused_by_name(text, parts, assert_refused):
    assert_refused(text, "recipe: ", *parts)


def test_a_misspelt_method_is_no_method():
    with pytest.raises(UnknownMethod, match="Did you mean 'ties'"):
        loads(f"merge_method: tise\n{BASE_A_B}")


@pytest.mark.parametrize(("source", "found"), [("base", "base"), ("o/base", "base"), ("o/b", "b"), ("union", "union")])
def test_the_source_of_the_tokenizer_is_a_model_or_all(source, found):
    for text in (f"tokenizer_source: {source}", f"tokenizer: {{source: {source}}}"):
        assert loads(f"merge_method: ties\n{BASE_A_B}{text}").vocabulary == Vocabulary(found)
    assert loads(f"merge_method: ties\n{BASE_A_B}tokenizer: {{}}\nchat_template: auto").vocabulary == Vocabulary(
        "union"
    )


@pytest.mark.parametrize(("method", "parameter"), [("slerp", "t: 0.5"), ("ties", "weight: 1")])
def test_a_module_or_slice_of_the_base_alone_is_a_copy_of_it(method, parameter):
    head = f"merge_method: {method}\nbase_model: o/base\nparameters: {{{parameter}}}\n"
    only, both = "{models: [{model: o/base}]}", "{models: [{model: o/base}, {model: o/a}]}"
    module, rest = loads(f"{head}modules: {{vision_tower: {only}, text_decoder: {both}}}").modules
    assert (module.recipe.method, rest.recipe.method) == ("passthrough", method)
    assert [model.source.path for model in module.recipe.models] == ["hf://o/base"]
    layers = "[{model: o/base, layer_range: [1, 3]}]"
    (only_slice,) = loads(f"{head}slices: [{{sources: {layers}}}]").slices
    assert (only_slice.method, only_slice.models[0].source.layers) == ("passthrough", (1, 3))


def test_tokens_may_have_their_own_sources():
    text = """
tokenizer:
  source: base
  pad_to_multiple_of: 64
  tokens:
    w: {source: o/a}
    x: {source: {kind: zero}, force: true}
    y: {source: {kind: model_token, model: o/b, token: z}}
    z: {source: {kind: model_token, model: o/base, token_id: 3}}
"""
    found = loads(f"merge_method: ties\n{BASE_A_B}{text}").vocabulary
    tokens = {"w": Token("a"), "x": Token("zero", force=True), "y": Token("b", "z"), "z": Token("base", token_id=3)}
    assert found == Vocabulary("base", tokens=tokens, pad_to_multiple_of=64)


def test_keys_that_are_null_are_not_there():
    assert loads(f"merge_method: linear\n{A_B}slices: null\nparameters:\nbase_model: ~") == loads(
        f"merge_method: linear\n{A_B}"
    )


def test_a_native_recipe_with_a_key_of_mergekits_is_native(assert_refused):
    assert_refused(
        "method: linear\nmodels: [a]\nmerge_method: linear", "merge_method is an unknown key", "Did you mean 'method'?"
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A recipe's folder beside the current one, with models in either or both."""
    for name in [
        "cwd/here",
        "cwd/both",
        "file/both",
        "file/there",
        "file/a+b",
        "file/a",
        "file/c+d",
        "file/l",
        "file/v@2",
    ]:
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def source_of(folder, written):
    text = f"merge_method: linear\nparameters: {{weight: 1}}\nmodels: [{{model: {written}}}]"
    (folder / "file/r.yml").write_text(text)
    return load(folder / "file/r.yml").models[0].source


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("here", "{}/cwd/here"),
        ("both", "{}/cwd/both"),
        ("there", "there"),
        ("./there", "./there"),
        ("./missing", "./missing"),
        ("missing", "missing"),
        ("org/name", "hf://org/name"),
        ("org/name@v1", "hf://org/name@v1"),
        ("a/b/c", "a/b/c"),
        ("x" * 300, "x" * 300),
        ("v@2", "v@2"),
        ("{{model: {{path: org/name, revision: v1}}}}", "hf://org/name@v1"),
        ("{{model: there}}", "there"),
    ],
)
def test_models_lie_in_the_current_folder_beside_the_recipe_or_on_the_hub(folder, written, path):
    assert source_of(folder, written.format()) == Source(path.format(folder))


def test_the_current_folder_is_the_recipes_own(folder, monkeypatch):
    monkeypatch.chdir(folder / "file")
    assert source_of(folder, "both") == Source("both")


@pytest.mark.parametrize(
    ("written", "path", "adapter"),
    [
        ("a+l", "a", "l"),
        ("a+b", "a+b", None),
        ("a+b+l", "a+b", "l"),
        ("a+c+d", "a", "c+d"),
        ("org/x+org/y@v2", "hf://org/x", "hf://org/y@v2"),
        ("x+y+org/z", "x+y", "hf://org/z"),
        ("{model: a, lora: {path: l}}", "a", "l"),
        ("{model: a, lora: null}", "a", None),
    ],
)
def test_a_plus_separates_model_and_adapter_where_that_can_be(folder, written, path, adapter):
    assert source_of(folder, written) == Source(path, lora=(Lora(adapter),) if adapter else ())


def test_local_folders_have_no_revisions(folder, assert_refused):
    text = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: {model: {path: there, revision: x}}}]"
    (folder / "file/r.yml").write_text(text)
    assert_refused(folder / "file/r.yml", "only models on the Hub")


def test_models_are_called_by_their_last_component_or_in_full_where_that_is_not_unique():
    models = "[{model: o/a}, {model: p/a}, {model: o/b+o/l}, {model: o/b+o/m}, {model: o/c}]"
    recipe = loads(f"merge_method: linear\nparameters: {{weight: 1}}\nmodels: {models}")
    assert [m.name for m in recipe.models] == ["o/a", "p/a", "o/b+o/l", "o/b+o/m", "c"]
    assert recipe.models[2] == Model("o/b+o/l", Source("hf://o/b", lora=(Lora("hf://o/l"),)))


@pytest.mark.parametrize("written", ["base", "./base", "o/base"])
def test_a_model_that_lies_in_a_folder_called_base_is_not_called_base(written):
    recipe = loads(
        f"merge_method: linear\nbase_model: {written}\nparameters: {{weight: 1}}\n"
        f"models: [{{model: {written}}}, {{model: o/a}}]"
    )
    assert [m.name for m in recipe.models] == [written if "/" in written else f"./{written}", "a"]


def test_the_page_about_mergekit_names_everything_that_is_translated_or_refused():
    page = (Path(__file__).parents[2] / "docs/coming-from-mergekit.md").read_text()
    parameters = {parameter.name for translation in TRANSLATIONS.values() for parameter in translation.parameters}
    for name in [*TRANSLATIONS, *_REFUSED, *(parameters - {"weight", "t"})]:
        assert f"`{name}`" in page, name
