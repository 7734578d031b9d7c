"""The bytes depend on the plan only."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import methods
from polyak.checkpoint import open as open_checkpoint
from polyak.engine import run, run_in_memory, tuning
from polyak.planning import plan as plan_recipe
from polyak.recipe import Model, Recipe, Source

from .conftest import SHAPES, random_family, random_statistics, recipe_text, tree_digest

methods.load_all()
SETTINGS = {
    "ties": [
        {},
        {"topk": "exact"},
        {"topk": "exact", "rescale": "l1", "zero_sum": "majority"},
        {"granularity": "model"},
        {"granularity": "model", "topk": "exact", "function": "max"},
    ],
    "dare_ties": [{"density": 0.6}, {"density": 0.6, "trim": 0.5}, {"density": 0.6, "rescale": "l1"}],
    "breadcrumbs": [{"density": 0.3, "gamma": 0.1}, {"density": 0.3, "gamma": 0.1, "granularity": "tensor"}],
    "model_stock": [{}, {"granularity": "row"}],
    "fisher": [{}, {"normalize": True, "floored": "all"}],
    "mats": [{}, {"by": "fisher"}],
    "consensus": [{}, {"of": "ties", "granularity": "model"}],
    "tall_masks": [{}, {"of": "ties"}],
    "pcb": [{}, {"granularity": "tensor", "ratio": 0.97, "clip": 0.05}],
    "magmax": [{"scale": 0.5}],
    "trimmed_mean": [{"trim": 0.34}],
    "nuslerp": [{}, {"flatten": False}, {"flatten": False, "along": "first"}],
    "sce": [{}, {"select_topk": 0.3}],
    "ram": [{"epsilon": 0.01}],
    "ramplus_tl": [{"epsilon": 0.01}],
    "nearswap": [{"t": 0.003}],
    "della": [{}, {"rescale": "l1"}],
}
OVER_THE_MODEL = {"pcb", "ties_part", "lines"}  # by default
CASES = [(name, settings) for name in methods.registry for settings in SETTINGS.get(name, [{}])]


def count_of(method):
    """How many models to merge: three, or as many as the method takes."""
    return methods.resolve(method).models[1] or 3


def planned(method, settings, family):
    models = tuple(Model(f"m{i}", Source(path="x")) for i in range(count_of(method)))
    recipe = Recipe(method, models, settings=settings, seed=3)
    given = {name: open_checkpoint(family[name]) for name in [m.name for m in models]}
    measured = {kind: {m: open_checkpoint(one) for m, one in each.items()} for kind, each in known(method, settings)}
    return plan_recipe(recipe, given | {"base": open_checkpoint(family["base"])}, measured)


def known(method, settings):
    """The statistics that a method asks for."""
    return random_statistics(methods.resolve(method), SHAPES, count_of(method), **settings).items()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


SMALL_SIZES = {
    "CHUNK": 1024,
    "BLOCK": 256,
    "COLLECTED": 1024,
    "SAMPLE_RUN": 16,
    "GROUP": 512,
    "FUSED_READ_NBYTES": 1000,
}


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces, blocks and samples so small that little tensors are cut like big ones."""
    for name, value in SMALL_SIZES.items():
        monkeypatch.setattr(tuning, name, value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_workers_and_tiles_do_not_change_a_byte(method, settings, small_pieces):
    family = random_family(models=3)
    first = run_in_memory(planned(method, settings, family), workers=1, tile=100_000)
    for workers, tile in [(1, 64), (4, 1000), (3, 333), (2, None)]:
        assert_same(first, run_in_memory(planned(method, settings, family), workers=workers, tile=tile))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_engine_agrees_with_the_definition(method, settings, dtype, small_pieces):
    """Streamed first passes and kernels against sorts and formulas on whole tensors."""
    default = "model" if method in OVER_THE_MODEL else "tensor"
    over_the_model = settings.get("granularity", default) == "model" or settings.get("normalize")
    if methods.resolve(method).is_random or over_the_model:
        pytest.skip("numbers are drawn by tensor name; whole-model passes are compared below")
    family = random_family(models=count_of(method), dtype=dtype)
    got = run_in_memory(planned(method, settings, family), workers=2)
    for name, tensor in got.items():
        stack = np.stack([np.asarray(family[f"m{i}"][name], np.float32) for i in range(count_of(method))])
        measured = {
            kind: np.stack([one[name] for one in of.values()])
            for kind, of in known(method, settings)
            if name in next(iter(of.values()))
        }
        base = np.asarray(family["base"][name], np.float32)
        wanted = methods.resolve(method)(stack, base, name=name, statistics=measured, **settings)
        np.testing.assert_allclose(
            tensor.astype(np.float32),
            wanted.astype(dtype).astype(np.float32),
            rtol=2e-6 if dtype == np.float32 else 8e-3,
            atol=1e-6,
        )


@pytest.mark.parametrize("topk", ["official", "exact"])
def test_whole_model_ties_is_ties_of_the_concatenation(topk, small_pieces):
    family = random_family()
    settings = {"granularity": "model", "topk": topk, "density": 0.3}
    got = run_in_memory(planned("ties", settings, family), workers=2)

    def flat(tensors):
        return np.concatenate([np.asarray(tensors[name], np.float32).ravel() for name in got])

    stack = np.stack([flat(family[f"m{i}"]) for i in range(3)])
    wanted = methods.resolve("ties")(stack, flat(family["base"]), **settings).astype(ml_dtypes.bfloat16)
    assert np.array_equal(np.concatenate([t.ravel() for t in got.values()]).view(np.uint16), wanted.view(np.uint16))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.1, 0.6, 0.999])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_whole_model_pcb_is_pcb_of_the_concatenation(ratio, dtype, small_pieces):
    """Order statistics above zero, at zero (deltas of bfloat16 are often zero), and below."""
    family = random_family(dtype=dtype)
    settings = {"ratio": ratio, "clip": 0.003}
    got = run_in_memory(planned("pcb", settings, family), workers=3)

    def flat(tensors):
        return np.concatenate([np.asarray(tensors[name], np.float32).ravel() for name in got])

    stack = np.stack([flat(family[f"m{i}"]) for i in range(3)])
    wanted = methods.resolve("pcb")(stack, flat(family["base"]), **settings).astype(dtype).astype(np.float32)
    np.testing.assert_allclose(flat(got), wanted, rtol=2e-6 if dtype == np.float32 else 8e-3, atol=1e-6)


@pytest.mark.parametrize("ties", [1, 3, 40, 10_000])
@pytest.mark.parametrize("topk", ["official", "exact"])
def test_any_number_of_equal_magnitudes_at_the_threshold(ties, topk, small_pieces):
    """Few distinct magnitudes, as bfloat16 deltas have: brackets of one value, overflows, histograms."""
    rng = np.random.default_rng(ties)
    base = {"layers.0.w": np.zeros((90, 101), np.float32)}
    values = np.round(rng.standard_normal((3, 90, 101)) * ties).astype(np.float32)
    family = {"base": base} | {f"m{i}": {"layers.0.w": v} for i, v in enumerate(values)}
    settings = {"topk": topk, "density": 0.37}
    got = run_in_memory(planned("ties", settings, family), workers=2)
    assert np.array_equal(got["layers.0.w"], methods.resolve("ties")(values, base["layers.0.w"], **settings))


def test_shards_change_only_where_tensors_lie(recipe, tmp_path):
    plan = polyak.plan(recipe)
    one = run(plan, tmp_path / "one")
    many = run(polyak.plan(recipe), tmp_path / "many", shard_nbytes=9_000, workers=3)
    assert one.digest == many.digest
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    a, b = polyak.open(tmp_path / "one"), polyak.open(tmp_path / "many")
    assert {n: a.read(n).tobytes() for n in a.specs} == {n: b.read(n).tobytes() for n in b.specs}


def test_the_same_recipe_writes_the_same_files(recipe, tmp_path):
    run(polyak.plan(recipe), tmp_path / "a", workers=1)
    run(polyak.plan(recipe), tmp_path / "b", workers=4, tile=777)
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")


def test_another_seed_gives_other_bytes_and_another_order_of_models_does_not(family):
    tensors = random_family()
    plan = planned("dare_linear", {"density": 0.5}, tensors)
    first = run_in_memory(plan)
    other = run_in_memory(replace(plan, recipe=replace(plan.recipe, seed=4)))
    assert any(first[n].tobytes() != other[n].tobytes() for n in first)
    turned = replace(plan.recipe, models=tuple(reversed(plan.recipe.models)))
    again = run_in_memory(
        replace(plan, recipe=turned, steps=tuple(replace(s, reads=s.reads[::-1]) for s in plan.steps))
    )
    for name in first:
        np.testing.assert_allclose(first[name].astype(np.float32), again[name].astype(np.float32), rtol=8e-3, atol=1e-3)


def test_a_nested_merge_is_the_merge_of_its_result(family, tmp_path):
    """Unrounded in between, so float32 throughout shows equality with the result written and merged again."""
    (family / "inner.yaml").write_text(recipe_text("ties", models=2) + "dtype: float32\n")
    (family / "outer.yaml").write_text(
        "models:\n  - {recipe: ./inner.yaml, name: inner}\n  - ./m2\nmethod: linear\ndtype: float32\n"
    )
    (family / "two.yaml").write_text("models: [./written, ./m2]\nmethod: linear\ndtype: float32\n")
    run(polyak.plan(family / "inner.yaml"), family / "written")
    a = run(polyak.plan(family / "outer.yaml"), tmp_path / "a", workers=2)
    b = run(polyak.plan(family / "two.yaml"), tmp_path / "b")
    assert a.digest == b.digest
