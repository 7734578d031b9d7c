"""Merges one after another in memory: the same bytes as each by itself, without doing again what did not change."""

from __future__ import annotations

import numpy as np
import pytest

from polyak import checkpoint, planning
from polyak.engine import Session, Sink, run_in_memory
from polyak.recipe import Model, Recipe, Rule, Source

SHAPES = {"embed.weight": (40, 16), "layers.0.w": (24, 16), "layers.1.w": (24, 16), "layers.1.b": (24,)}


class Arrays(Sink):
    """A sink that keeps what it was given."""

    def __init__(self):
        self.arrays = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}

    def write(self, step, start, data):
        flat = self.arrays[step.out.name].reshape(-1)
        flat[start : start + len(data) // 4] = data.view(np.float32)


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    state = lambda: {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}  # noqa: E731
    return {name: checkpoint.open(state()) for name in ("base", "a", "b", "c")}


def plan(given, method, settings, rules=()):
    models = tuple(Model(name, Source(path=name)) for name in ("a", "b", "c"))
    return planning.plan(Recipe(method, models, Source(path="base"), settings=settings, rules=rules), given)


def both(given, plans):
    """Each plan after the others, and by itself; which tensors were merged."""
    sink, merged = Arrays(), []
    session = Session(sink)
    for one in plans:
        merged.append([step.out.name for step in session.merge(one)])
        for name, tensor in run_in_memory(one).items():
            np.testing.assert_array_equal(sink.arrays[name], tensor, strict=True)
    return merged


WAYS = {
    "ties by weight": ("ties", [{"weight": (1.0, w, 0.5)} for w in (0.2, 0.7, 0.0, 0.2)]),
    "ties by density": ("ties", [{"density": d} for d in (0.2, 0.9, 0.2)]),
    "ties over the model": (
        "ties",
        [{"granularity": "model", "density": d, "scale": s} for d, s in [(0.2, 1.0), (0.2, 0.5), (0.6, 0.5)]],
    ),
    "ties by majority": (
        "ties",
        [{"zero_sum": z, "weight": (1.0, w, -1.0)} for z in ("drop", "majority") for w in (0.3, 1.0)],
    ),
    "dare": ("dare_ties", [{"density": 0.5, "weight": (1.0, w, 1.0)} for w in (0.5, 0.6)]),
    "breadcrumbs": ("breadcrumbs", [{"gamma": g, "density": 0.8} for g in (0.0, 0.1)]),
    "model stock": ("model_stock", [{}, {}]),
    "sce": ("sce", [{}, {}]),
    "tsv": ("tsv_m", [{"scale": s} for s in (1.0, 0.5)]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_is_remembered_changes_no_byte(given, way):
    method, settings = WAYS[way]
    both(given, [plan(given, method, one) for one in settings])


def test_tensors_whose_numbers_stay_are_not_merged_again(given):
    rules = [(Rule("embed", settings={"weight": w}),) for w in (0.3, 0.4)]
    merged = both(given, [plan(given, "linear", {}, one) for one in rules] + [plan(given, "linear", {}, rules[1])])
    assert merged == [list(SHAPES), ["embed.weight"], []]


def test_a_threshold_over_the_model_that_moves_changes_every_tensor(given):
    settings = {"granularity": "model", "density": 0.3}
    cut = (Rule("embed", settings={"scale": 0.5}), Rule("embed", settings={"density": 0.9}))
    merged = both(given, [plan(given, "ties", settings), *(plan(given, "ties", settings, (one,)) for one in cut)])
    assert merged[1] == ["embed.weight"] and set(merged[2]) == set(SHAPES)


def test_thresholds_are_not_looked_for_again_when_weights_change(given, monkeypatch):
    from polyak.engine.first_passes import dispatch

    asked = []
    start_pass = dispatch.start_pass
    monkeypatch.setattr(dispatch, "start_pass", lambda *arguments: asked.append(1) or start_pass(*arguments))
    session = Session(Arrays())
    counts = []
    for settings in ({"density": 0.2}, {"density": 0.2, "weight": 0.5}, {"density": 0.3}, {"density": 0.2}):
        session.merge(plan(given, "ties", settings))
        counts.append(len(asked))
    assert counts == [4, 4, 8, 8]


def test_a_merge_that_fails_is_done_again_in_full(given):
    sink = Arrays()
    session, good = Session(sink), plan(given, "task_arithmetic", {})
    session.merge(good)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError):
        patch.setattr(sink, "write", _refuse)
        session.merge(plan(given, "task_arithmetic", {"scale": 0.5}))
    assert len(session.merge(good)) == len(SHAPES)


def _refuse(step, start, data):
    raise OSError("no")
