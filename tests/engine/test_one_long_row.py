"""A tensor that is one row is not held whole, and merges to the same as if it were."""

from __future__ import annotations

import numpy as np
import pytest

import polyak
from polyak.engine import tuning
from polyak.engine.first_passes import dispatch
from polyak.engine.step.inputs import Sources

WORKS = [
    ("breadcrumbs", {"granularity": "row"}),
    ("breadcrumbs_ties", {"granularity": "row"}),
    ("model_stock", {"granularity": "row"}),
    ("nuslerp", {"flatten": False}),
]


@pytest.mark.parametrize(("method", "settings"), WORKS)
@pytest.mark.parametrize("shape", [(1, 3000), (3000,)])
def test_one_long_row_is_merged_like_a_short_one(method, settings, shape, monkeypatch):
    rng = np.random.default_rng(0)
    base, *models = ({"w": rng.integers(-9, 9, shape).astype(np.float32)} for _ in range(3))  # many are equal
    wanted = polyak.merge_state_dicts(models, method=method, base=base, **settings)["w"]
    held: list[type] = []
    monkeypatch.setattr(tuning, "LONG_ROW", 100)
    monkeypatch.setattr("polyak.engine.first_passes.dispatch.start_pass", _noting(dispatch.start_pass, held))
    found = polyak.merge_state_dicts(models, method=method, base=base, **settings)["w"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert {one.__name__ for one in held} <= {"TopkOfTensors", "GramOfTensors"}
    assert held


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000,), (2, 150_000)])
def test_divergences_of_long_rows_are_found_part_by_part_to_the_last_bit(shape, monkeypatch):
    rng = np.random.default_rng(1)
    base = {"w": rng.normal(0, 1, shape).astype(np.float32)}
    model = {"w": base["w"] + rng.normal(0, 0.1, shape).astype(np.float32)}
    wanted = polyak.merge_state_dicts([model], method="arcee_fusion", base=base)["w"]
    held: list[int] = []
    monkeypatch.setattr(tuning, "LONG_ROW", 100_000)
    monkeypatch.setattr(Sources, "load", _measuring(Sources.load, held))
    found = polyak.merge_state_dicts([model], method="arcee_fusion", base=base)["w"]
    assert found.tobytes() == wanted.tobytes() != base["w"].tobytes()
    assert max(held) <= tuning.BLOCK


def _measuring(load, held):
    def measured(self, start, stop):
        held.append(stop - start)
        return load(self, start, stop)

    return measured


def _noting(answering, held):
    def noted(*args):
        found = answering(*args)
        held.append(type(found))
        return found

    return noted
