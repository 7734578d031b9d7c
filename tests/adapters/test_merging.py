"""Merges of adapters against float64 sums of s B A, and adapters that do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import polyak
from polyak import adapters, recipe
from polyak.errors import (
    CheckpointError,
    Mismatch,
    NotFinite,
    OutputError,
    RecipeError,
    SettingError,
    UnsupportedFormat,
)

from .made import SHAPES, configuration, deltas, relative_error, tensors, write_adapter

ROUNDING = 3e-7  # of factors in float32


@pytest.fixture
def pair(tmp_path):
    """Two adapters with nothing in common but their modules."""
    write_adapter(tmp_path / "a", 1, 2, ranks={"model.layers.1.q_proj": 3}, alpha_pattern={"v_proj": 9})
    write_adapter(tmp_path / "b", 2, 4, use_rslora=True, lora_alpha=7)
    return tmp_path


def merge(place, out="out", *, models=("a", "b"), method="task_arithmetic", **said):
    weights = said.pop("weights", None)
    each = [{"path": m} | ({"weight": w} if weights else {}) for m, w in zip(models, weights or models, strict=True)]
    return adapters.merge(recipe.read({"models": each, "method": method} | said, place), place / out)


def wanted(place, weights, models=("a", "b")):
    each = [deltas(place / m) for m in models]
    names = dict.fromkeys(n for one in each for n in one)
    return {n: sum(w * one[n] for w, one in zip(weights, each, strict=True) if n in one) for n in names}


# Values


@pytest.mark.parametrize("weights", [(1, 1), (0.3, -1.7), (1, -1), (0, 2)])
def test_weighted_sums_are_exact_for_mixed_ranks_alphas_and_scalings(pair, weights):
    report = merge(pair, weights=weights)
    assert relative_error(deltas(pair / "out"), wanted(pair, weights)) < ROUNDING
    assert report.share_lost == 0


def test_linear_divides_by_the_sum_of_the_weights(pair):
    merge(pair, method="linear", weights=(1, 3))
    assert relative_error(deltas(pair / "out"), wanted(pair, (0.25, 0.75))) < ROUNDING


def test_the_result_has_scaling_one_and_says_each_rank(pair):
    merge(pair)
    said = configuration(pair / "out")
    assert (said["r"], said["lora_alpha"], said["use_rslora"]) == (6, 6, False)
    assert said["rank_pattern"] == said["alpha_pattern"] == {"^model.layers.1.q_proj": 7}
    assert said["base_model_name_or_path"] == "base"
    assert said["target_modules"] == ["q_proj", "v_proj"]


def test_one_adapter_comes_out_as_it_went_in(pair):
    merge(pair, models=["a"])
    assert relative_error(deltas(pair / "out"), deltas(pair / "a")) < ROUNDING


def test_thirty_adapters_are_reduced_to_what_the_matrices_can_have(tmp_path):
    names = [str(i) for i in range(30)]
    for i, name in enumerate(names):
        write_adapter(tmp_path / name, i)
    report = merge(tmp_path, models=names, method="linear")
    assert relative_error(deltas(tmp_path / "out"), wanted(tmp_path, [1 / 30] * 30, names)) < ROUNDING
    assert report.ranks == (6, 8)


def test_a_rank_keeps_the_best_approximation_and_says_what_is_lost(pair):
    report = merge(pair, adapter={"rank": 2})
    want, found = wanted(pair, (1, 1)), deltas(pair / "out")
    lost = {n: np.sum(np.linalg.svd(w, compute_uv=False)[2:] ** 2) for n, w in want.items()}
    assert {n: np.sum((found[n] - w) ** 2) for n, w in want.items()} == pytest.approx(lost, rel=1e-5)
    assert {m.name: m.lost for m in report.modules} == pytest.approx(lost, rel=1e-6)
    stated = json.loads((pair / "out" / "polyak.json").read_text())
    assert {n: m["rank"] for n, m in stated["modules"].items()} == dict.fromkeys(want, 2)


def test_energy_chooses_the_rank_of_each_module(pair):
    report = merge(pair, adapter={"energy": 0.8})
    assert all(m.share_lost <= 0.2 for m in report.modules)
    assert len({m.rank for m in report.modules}) > 1
    assert relative_error(deltas(pair / "out"), wanted(pair, (1, 1))) == pytest.approx(np.sqrt(report.share_lost), 1e-4)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties", "breadcrumbs", "median", "model_stock"])
def test_other_methods_merge_the_exact_products(pair, method):
    settings = {"granularity": "model"} if method == "ties" else {}
    merge(pair, method=method, settings=settings, seed=3, adapter={"rank": 8})
    given = [{f"{n}.weight": d.astype(np.float32) for n, d in deltas(pair / m).items()} for m in "ab"]
    zeros = {name: np.zeros_like(delta) for name, delta in given[0].items()}
    want = polyak.merge_state_dicts(dict(zip("ab", given, strict=True)), method=method, base=zeros, seed=3, **settings)
    found = deltas(pair / "out")
    assert relative_error(found, {n.removesuffix(".weight"): w for n, w in want.items()}) < 1e-6


def test_rules_and_skip_work_by_the_names_of_weights(pair):
    rules = [{"match": "v_proj", "method": "ties"}]
    merge(pair, rules=rules, skip=r"layers\.1", adapter={"rank": 6})
    found = deltas(pair / "out")
    assert set(found) == {"model.layers.0.q_proj", "model.layers.0.v_proj"}
    both = wanted(pair, (1, 1))
    np.testing.assert_allclose(found["model.layers.0.q_proj"], both["model.layers.0.q_proj"], atol=1e-6)
    assert np.abs(found["model.layers.0.v_proj"] - both["model.layers.0.v_proj"]).max() > 0.01
    assert configuration(pair / "out")["target_modules"] == sorted(found)


def test_workers_do_not_change_a_byte(pair):
    for workers in (1, 4):
        asked = recipe.read({"models": ["a", "b"], "method": "ties", "adapter": {"rank": 3}}, pair)
        adapters.merge(asked, pair / f"out-{workers}", workers=workers)
    one, four = ((pair / f"out-{n}" / "adapter_model.safetensors").read_bytes() for n in (1, 4))
    assert one == four


def test_convolutions_keep_their_shape(tmp_path):
    for seed, name in enumerate("ab"):
        write_adapter(tmp_path / name, seed, shapes={"conv": (5, 4, 3, 3), "pointwise": (6, 4, 1, 1)})
    merge(tmp_path, method="ties", adapter={"rank": 4})
    merge(tmp_path, "sum")
    assert tensors(tmp_path / "out")["base_model.model.conv.lora_A.weight"].shape == (4, 4, 3, 3)
    assert tensors(tmp_path / "out")["base_model.model.conv.lora_B.weight"].shape == (5, 4, 1, 1)
    assert relative_error(deltas(tmp_path / "sum"), wanted(tmp_path, (1, 1))) < ROUNDING


def test_transposed_weights_and_embeddings_are_merged_as_they_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    for seed, name in enumerate("ab"):
        extra = {
            "base_model.model.wte.lora_embedding_A": rng.normal(size=(2, 50)).astype(np.float32),
            "base_model.model.wte.lora_embedding_B": rng.normal(size=(8, 2)).astype(np.float32),
        }
        write_adapter(tmp_path / name, seed, shapes={"c_attn": (24, 8)}, tensors=extra, fan_in_fan_out=True)
    merge(tmp_path, method="breadcrumbs", adapter={"energy": 1.0})
    held = tensors(tmp_path / "out")
    got = held["base_model.model.wte.lora_embedding_B"] @ held["base_model.model.wte.lora_embedding_A"]
    each = [tensors(tmp_path / m) for m in "ab"]
    models = [
        {"wte.weight": 2 * (e["base_model.model.wte.lora_embedding_B"] @ e["base_model.model.wte.lora_embedding_A"]).T}
        for e in each
    ]
    base = {"wte.weight": np.zeros((50, 8), np.float32)}
    want = polyak.merge_state_dicts(models, method="breadcrumbs", base=base)["wte.weight"].T
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert configuration(tmp_path / "out")["fan_in_fan_out"] is True


def test_factors_averaged_by_themselves_are_reported_with_their_error(tmp_path):
    for seed, name in enumerate("ab"):
        write_adapter(tmp_path / name, seed)
    report = merge(tmp_path, method="linear", adapter={"space": "factors"})
    a, b = (tensors(tmp_path / m) for m in "ab")
    for name, found in tensors(tmp_path / "out").items():
        scale = 2 if "lora_A" in name else 1
        np.testing.assert_allclose(found, scale * (a[name] + b[name]) / 2, atol=1e-6)
    error = relative_error(deltas(tmp_path / "out"), wanted(tmp_path, (0.5, 0.5)))
    assert error == pytest.approx(np.sqrt(report.share_lost), rel=1e-5)
    assert error > 0.3


# Tensors that are kept whole


def with_head(place, name, seed):
    head = np.random.default_rng(seed).normal(size=(3, 8)).astype(np.float32)
    given = {"base_model.model.score.weight": head}
    return write_adapter(place / name, seed, tensors=given, modules_to_save=["score"])


def test_saved_modules_are_averaged(tmp_path):
    for seed, name in enumerate("ab"):
        with_head(tmp_path, name, seed)
    merge(tmp_path, method="linear", weights=(1, 3))
    a, b, out = (tensors(tmp_path / m)["base_model.model.score.weight"] for m in ("a", "b", "out"))
    np.testing.assert_allclose(out, 0.25 * a + 0.75 * b, rtol=1e-6)
    assert configuration(tmp_path / "out")["modules_to_save"] == ["score"]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_saved_modules_that_would_not_be_averaged_are_refused_with_the_rule_that_helps(tmp_path, method):
    for seed, name in enumerate("ab"):
        with_head(tmp_path, name, seed)
    with pytest.raises(RecipeError, match="score") as refused:
        merge(tmp_path, method=method, adapter={"rank": 2})
    assert "method: linear" in str(refused.value)
    merge(tmp_path, method=method, adapter={"rank": 2}, rules=[{"match": r"score\.weight", "method": "linear"}])
    assert "base_model.model.score.weight" in tensors(tmp_path / "out")


# What does not fit


def refused(place, error, *words, **said):
    with pytest.raises(error) as found:
        merge(place, **said)
    for word in words:
        assert word in str(found.value), str(found.value)
    assert not (place / "out").exists()
    assert not (place / ".out.polyak").exists()


def test_adapters_for_different_bases_are_refused_unless_the_base_is_named(pair):
    write_adapter(pair / "b", 2, base_model_name_or_path="org/another")
    refused(pair, Mismatch, "a is for 'base'", "b is for 'org/another'")
    merge(pair, adapter={"base": "org/base"})
    assert configuration(pair / "out")["base_model_name_or_path"] == "org/base"


def test_adapters_of_different_modules_are_refused_or_taken_as_zero(pair):
    fewer = {n: s for n, s in SHAPES.items() if "v_proj" not in n}
    write_adapter(pair / "b", 2, shapes=fewer)
    refused(pair, Mismatch, "'model.layers.0.v_proj' is not in b", "absent: zero")
    for method, limit in [("task_arithmetic", {}), ("ties", {"rank": 3})]:
        merge(pair, f"out-{method}", method=method, adapter={"absent": "zero"} | limit)
    assert relative_error(deltas(pair / "out-task_arithmetic"), wanted(pair, (1, 1))) < ROUNDING


# Names of two versions of a library


def moved(beginning, names=SHAPES):
    return {name.replace("model.", beginning, 1): shape for name, shape in names.items()}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model.", "model.language_model."),
        ("language_model.model.", "model.language_model."),
        ("", "model."),
        ("_orig_mod.model.", "model."),
    ],
)
def test_modules_that_differ_in_the_modules_around_them_meet_under_the_names_of_the_first(tmp_path, first, second):
    head = {"lm_head": (5, 8)}  # which both call alike
    for name, seed, beginning in [("a", 0, first), ("b", 1, second), ("as_a", 1, first)]:
        score = {f"base_model.model.{beginning}score.weight": np.full((2, 8), seed, np.float32)}
        shapes = moved(beginning) | head
        write_adapter(tmp_path / name, seed, shapes=shapes, tensors=score, modules_to_save=["score"])
    notes = []
    for models, out in ((("a", "as_a"), "wanted"), (("a", "b"), "out")):
        each = [{"path": m, "name": "b" if m == "as_a" else m} for m in models]
        merge = recipe.read({"models": each, "method": "linear"}, tmp_path)
        adapters.merge(merge, tmp_path / out, progress=lambda event: notes.append(getattr(event, "text", "")))
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "wanted" / file).read_bytes()
    (note,) = filter(None, notes)
    assert note.startswith("note: b: its modules are renamed as in a (")


@pytest.mark.parametrize("more", ["a", "b"])
def test_modules_that_one_of_two_versions_lacks_are_zero_in_it(tmp_path, more):
    fewer = {n: s for n, s in SHAPES.items() if "v_proj" not in n}
    write_adapter(tmp_path / "a", 1, shapes=SHAPES if more == "a" else fewer)
    write_adapter(tmp_path / "b", 2, shapes=moved("model.language_model.", SHAPES if more == "b" else fewer))
    if more == "b":
        refused(tmp_path, Mismatch, "'model.layers.0.v_proj' is not in a")
    merge(tmp_path, adapter={"absent": "zero"})
    b = {n.replace("language_model.", ""): delta for n, delta in deltas(tmp_path / "b").items()}
    each = [deltas(tmp_path / "a"), b]
    both = {name: sum(of[name] for of in each if name in of) for name in SHAPES}
    assert relative_error(deltas(tmp_path / "out"), both) < ROUNDING


@pytest.mark.parametrize(
    ("first", "second", "shapes"),
    [
        ("text_model.encoder.", "vision_model.encoder.", SHAPES),
        ("encoder.", "decoder.", SHAPES),
        ("model.", "model.language_model.", SHAPES | {"model.layers.0.v_proj": (6, 9)}),
    ],
)
def test_modules_that_may_be_others_are_not_renamed(tmp_path, first, second, shapes):
    write_adapter(tmp_path / "a", 1, shapes=moved(first))
    write_adapter(tmp_path / "b", 2, shapes=moved(second, shapes))
    refused(tmp_path, Mismatch, "is not in b", "polyak lora bake BASE ADAPTER OUT")
    merge(tmp_path, adapter={"absent": "zero"})
    assert set(deltas(tmp_path / "out")) == {*moved(first), *moved(second)}


def test_no_renaming_makes_two_modules_of_an_adapter_one(tmp_path):
    write_adapter(tmp_path / "a", 1, shapes={f"model.layers.{i}.q_proj": (6, 8) for i in range(2)})
    names = "layers.0.q_proj", "layers.1.q_proj", "model.layers.1.q_proj"
    write_adapter(tmp_path / "b", 2, shapes=dict.fromkeys(names, (6, 8)))
    refused(tmp_path, Mismatch, "'layers.0.q_proj' is not in a")


# What does not fit


def test_modules_of_different_shapes_are_refused(pair):
    write_adapter(pair / "b", 2, shapes=SHAPES | {"model.layers.0.v_proj": (6, 9)})
    refused(pair, Mismatch, "v_proj", "[6, 8] in a", "[6, 9] in b")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": "LOKR"}, "LOKR"),
        ({"r": 0}, "r must"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(pair, said, word):
    write_adapter(pair / "b", 2, **said)
    refused(pair, UnsupportedFormat if "r" not in said else CheckpointError, word)


def test_a_rank_above_every_matrix_is_refused(pair):
    refused(pair, SettingError, "rank 9", "8", adapter={"rank": 9})


def test_a_method_that_gives_no_low_rank_asks_for_a_limit(pair):
    refused(pair, RecipeError, "ties", "rank: 16", method="ties")


def test_only_weighted_sums_of_equal_ranks_average_factors(pair):
    refused(pair, Mismatch, "[2, 4]", method="linear", adapter={"space": "factors"}, skip="layers.1")
    refused(pair, RecipeError, "ties", method="ties", adapter={"space": "factors", "rank": 2})


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_nan_in_a_factor_is_named(pair, method):
    name = "base_model.model.model.layers.0.q_proj.lora_B.weight"
    write_adapter(pair / "b", 2, tensors={name: np.full((12, 2), np.nan, np.float32)})
    refused(pair, NotFinite, name, "b (", method=method, adapter={"rank": 2})


def test_numbers_that_the_dtype_cannot_hold_are_refused(pair):
    refused(pair, NotFinite, "F16", weights=(1e6, 1), dtype="float16")


def test_a_zero_adapter_changes_nothing(pair):
    zero = {f"base_model.model.{n}.lora_B.weight": np.zeros((s[0], 2), np.float32) for n, s in SHAPES.items()}
    write_adapter(pair / "zero", 3, tensors=zero)
    merge(pair, models=["a", "zero"], adapter={"rank": 3})
    assert relative_error(deltas(pair / "out"), deltas(pair / "a")) < ROUNDING
    report = merge(pair, "nothing", models=["zero"], method="ties", adapter={"energy": 0.9})
    assert report.share_lost == 0
    assert not any(delta.any() for delta in deltas(pair / "nothing").values())


def test_a_folder_without_a_configuration_is_refused(pair):
    (pair / "b" / "adapter_config.json").unlink()
    refused(pair, CheckpointError, "no adapter_config.json")


def test_a_recipe_with_a_base_or_with_loras_is_refused(pair):
    refused(pair, RecipeError, "base", base="a")
    with pytest.raises(RecipeError, match="adapter as `path:`"):
        adapters.merge(recipe.read({"models": [{"path": "a", "lora": "b"}], "method": "linear"}, pair), pair / "out")


def test_an_input_is_never_overwritten(pair):
    before = tensors(pair / "a")
    asked = recipe.read({"models": ["a", "b"], "method": "linear"}, pair)
    with pytest.raises(OutputError):
        adapters.merge(asked, pair / "a", force=True)
    np.testing.assert_equal(tensors(pair / "a"), before)


def test_a_result_is_replaced_only_by_force(pair):
    merge(pair)
    with pytest.raises(OutputError, match="--force"):
        merge(pair, method="linear")
    asked = recipe.read({"models": ["a", "b"], "method": "linear"}, pair)
    adapters.merge(asked, pair / "out", force=True)
    assert relative_error(deltas(pair / "out"), wanted(pair, (0.5, 0.5))) < ROUNDING


def test_an_ordinary_merge_refuses_such_a_recipe(pair):
    with pytest.raises(RecipeError, match="polyak lora merge"):
        polyak.plan({"models": [str(pair / "a")], "method": "linear", "adapter": {"rank": 2}})


@pytest.mark.parametrize(
    "said", [{}, {"rank": 3}, {"energy": 0.5, "space": "factors"}, {"absent": "zero", "base": "org/base"}], ids=str
)
def test_recipes_of_adapters_are_written_as_they_are_read(said):
    jsonschema = pytest.importorskip("jsonschema")
    data = {"models": ["a", "b"], "method": "linear", "adapter": said}
    jsonschema.Draft202012Validator(recipe.schema()).validate(data)
    asked = recipe.read(data)
    assert recipe.loads(recipe.dump(asked)) == asked
    assert asked.adapter == recipe.Factorisation(**said)


@pytest.mark.parametrize(
    "said", [{"rank": 0}, {"rank": 1.5}, {"energy": 0}, {"energy": 1.1}, {"space": "sum"}, {"ranks": 1}, [1]], ids=str
)
def test_what_the_result_cannot_be_like_is_refused(said):
    with pytest.raises(RecipeError, match="adapter"):
        recipe.read({"models": ["a"], "method": "linear", "adapter": said})
