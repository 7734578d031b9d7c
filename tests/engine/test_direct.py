"""Merges straight from stored numbers into memory, and thresholds from sorted deltas: the same bytes as ever."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from polyak import checkpoint, planning
from polyak.engine import Session, Sink, run_in_memory, tuning
from polyak.engine.first_passes import gram as passes
from polyak.engine.session.input_cache import InputCache
from polyak.errors import NotFinite
from polyak.recipe import Model, Recipe, Source

SHAPES = {"embed.weight": (40, 51), "layers.0.w": (2051,), "layers.1.w": (3, 1100), "scalar": ()}
NAMES = ("a", "b", "c")


class Places(Sink):
    """Float32 memory, and what went there by way of the sink."""

    def __init__(self):
        self.memory = {name: np.full(int(np.prod(shape)), 7, np.float32) for name, shape in SHAPES.items()}
        self.written = set()

    def write(self, step, start, data):
        values = data.view(step.out.dtype.numpy)
        self.memory[step.out.name][start : start + len(values)] = values
        self.written.add(step.out.name)

    def place(self, step):
        return self.memory[step.out.name]


def given(dtype, seed=0, count=3):
    rng = np.random.default_rng(seed)
    state = lambda: {n: rng.standard_normal(s).astype(np.float32).astype(dtype) for n, s in SHAPES.items()}  # noqa: E731
    return {name: checkpoint.open(state()) for name in ("base", *(f"m{i}" for i in range(count - 3)), *NAMES)}


def plan(opened, method, settings, dtype=None):
    models = tuple(Model(name, Source(path=name)) for name in opened if name != "base")
    return planning.plan(Recipe(method, models, Source(path="base"), settings=settings, dtype=dtype), opened)


def session_into(sink, budget=2**40):
    left = [budget]

    def take(nbytes):
        if nbytes > left[0]:
            return False
        left[0] -= nbytes
        return True

    inputs = InputCache(lambda one: lambda name, out: one.read_into(name, 0, one.specs[name].numel, out), take)
    return Session(sink, inputs=inputs, workers=2)


def check(opened, plans, budget=2**40):
    """Each plan after the others by every shortcut, and by itself; the sink."""
    sink = Places()
    session = session_into(sink, budget)
    for one in plans:
        session.merge(one)
        for name, tensor in run_in_memory(one).items():
            found = sink.memory[name].reshape(SHAPES[name])
            np.testing.assert_array_equal(found.view(np.uint32), tensor.astype(np.float32).view(np.uint32), name)
    return sink


WAYS = [("linear", [{"normalize": n, "weight": (0.3, w, 0.7)} for n in (True, False) for w in (0.5, -0.2, 0.0)])]
WAYS += [("task_arithmetic", [{"weight": (0.3, w, 0.7), "scale": 0.4, "normalize": w > 0} for w in (0.5, -0.2)])]
WAYS += [
    ("ties", [{"weight": (0.3, w, 0.7), "function": f, "zero_sum": z} for w in (0.5, -0.2)])
    for f in ("mean", "sum", "max")
    for z in ("drop", "positive", "majority")
]
WAYS += [
    ("ties", [{"density": (0.4, d, 0.6), "topk": t, "granularity": g} for d in (0.0, 0.1, 0.5, 0.9, 1.0)])
    for t in ("official", "exact")
    for g in ("tensor", "model")
]


@pytest.mark.slow
@pytest.mark.parametrize("out", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_merges_of_stored_numbers_have_the_bits_of_any_merge(dtype, out):
    opened = given(dtype)
    for method, settings in WAYS:
        sink = check(opened, [plan(opened, method, one, out) for one in settings])
        assert sink.written == set(), method


SWEPT = [("linear", {"weight": (0.3, 0.5, 0.7)}), ("task_arithmetic", {}), ("ties", {}), ("ties", {"density": 0.3})]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_sums_and_elections_of_finite_numbers_take_one_sweep(dtype, monkeypatch):
    from polyak.engine.session import in_place as direct

    opened = given(dtype)
    asked = [plan(opened, method, settings) for method, settings in SWEPT]
    monkeypatch.setattr(direct, "merge_from", None)  # what merges some entries at a time
    check(opened, asked)


def test_where_equals_are_told_apart_or_the_dtype_changes_there_is_no_sweep(monkeypatch):
    from polyak.engine.session import in_place as direct

    opened, merged = given(ml_dtypes.bfloat16), []
    merge_from = direct.merge_from
    monkeypatch.setattr(direct, "merge_from", lambda *given: merged.append(1) or merge_from(*given))
    for settings, out in (({"topk": "exact", "density": 0.3}, None), ({}, "float32")):
        merged.clear()
        check(opened, [plan(opened, "ties", settings, out)])
        assert len(merged) >= len(SHAPES) - 1


def test_thresholds_come_from_sorted_deltas_from_the_second_candidate_on(monkeypatch):
    from polyak.engine.first_passes import dispatch

    swept = []
    start_pass = dispatch.start_pass
    monkeypatch.setattr(dispatch, "start_pass", lambda *arguments: swept.append(1) or start_pass(*arguments))
    opened = given(np.float32)
    counts = []
    session = session_into(Places())
    for density in (0.2, 0.4, 0.6, 0.8):
        session.merge(plan(opened, "ties", {"density": density}))
        counts.append(len(swept))
    assert counts == [4, 4, 4, 4]


@pytest.mark.parametrize("budget", [0, 4 * 4 * 2051 + 4096])
def test_what_does_not_fit_the_budget_is_merged_as_ever(budget):
    opened = given(np.float32)
    sink = check(opened, [plan(opened, "ties", {"density": d}, "float32") for d in (0.2, 0.4, 0.6)], budget)
    assert sink.written


def test_many_models_and_other_dtypes_are_merged_into_their_places_too():
    many, halves = given(np.float32, count=17), given(np.float16)
    assert check(many, [plan(many, "ties", {"weight": w}, "float32") for w in (0.5, 0.6)]).written == set()
    assert check(halves, [plan(halves, "ties", {"weight": w}) for w in (0.5, 0.6)]).written == set()


def test_dtypes_that_are_widened_by_a_table_go_through_the_sink():
    eighths = given(ml_dtypes.float8_e4m3fn)
    assert check(eighths, [plan(eighths, "ties", {"weight": w}) for w in (0.5, 0.6)]).written == set(SHAPES)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_numbers_that_are_not_finite_are_refused_whether_a_threshold_would_drop_them_or_not(dtype):
    opened = given(dtype)
    state = {name: opened["b"].read(name).copy() for name in SHAPES}
    state["layers.0.w"][1500] = np.nan
    broken = opened | {"b": checkpoint.open(state)}
    for method in ("linear", "ties"):
        sink = Places()
        with pytest.raises(NotFinite, match=r"'layers.0.w' of b .* holds nan at \[1500\]"):
            session_into(sink).merge(plan(broken, method, {}))


@pytest.mark.parametrize(("out", "scale"), [("float32", 1e38), ("bfloat16", 1e38)])
def test_results_that_the_dtype_cannot_hold_are_refused(out, scale):
    opened = given(np.float32)
    for method in ("task_arithmetic", "ties"):
        sink = Places()
        asked = plan(opened, method, {"scale": scale, "weight": 100.0}, out)
        with pytest.raises(NotFinite, match=f"the merge of .* by '{method}' holds numbers that"):
            session_into(sink).merge(asked)


@pytest.fixture
def small_pieces(monkeypatch):
    """Tensors are cut, so that most spans begin behind the first entry; which windows first passes were given."""
    windows, products = [], passes.products

    def noted(dtype):
        run = products(dtype)
        return lambda rows, *more: windows.append(rows.flags.c_contiguous) or run(rows, *more)

    monkeypatch.setattr(passes, "products", noted)
    monkeypatch.setattr(tuning, "CHUNK", 512)
    monkeypatch.setattr(tuning, "BLOCK", 128)
    return windows


PASSING = [("model_stock", {}, 3), ("slerp", {"t": 0.3}, 2), ("ties", {"topk": "exact", "density": 0.3}, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "settings", "models"), PASSING, ids=["model_stock", "slerp", "ties"])
def test_pieces_of_what_is_in_memory_are_passed_over_and_merged_where_they_lie(
    method, settings, models, dtype, small_pieces
):
    opened = dict(list(given(dtype).items())[: models + 1])
    for out in ("float32", "bfloat16"):
        small_pieces.clear()
        sink, asked = Places(), plan(opened, method, settings, out)
        session_into(sink).merge(asked)
        assert sink.written == set()
        assert method == "ties" or small_pieces.count(False) > 10  # a piece of rows is not contiguous
        for name, tensor in run_in_memory(asked).items():
            found = sink.memory[name].reshape(SHAPES[name])
            np.testing.assert_array_equal(found.view(np.uint32), tensor.astype(np.float32).view(np.uint32), name)
