"""Every method there is, on inputs that are easily forgotten."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import polyak
from polyak import testing
from polyak.errors import PolyakError
from polyak.methods import Method, load_all, registry

from ..engine.conftest import random_statistics

load_all()
EVERY = pytest.mark.parametrize("method", registry.values(), ids=registry)
SHAPES = {"layers.0.w": (6, 5), "layers.0.b": (5,), "one": (1,), "column": (4, 1), "scalar": (), "nothing": (0, 3)}


def family(method: Method, models: int, spread: float = 0.1) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Models, and the base that they were moved from, where the method looks at it."""
    rng = np.random.default_rng(7)
    base = {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in SHAPES.items()}
    moved = [
        {n: np.asarray(t + spread * rng.normal(size=t.shape), np.float32) for n, t in base.items()}
        for _ in range(models)
    ]
    return moved, base if method.uses_base else None


def merged(method: Method, models: list[dict[str, Any]], base: dict[str, Any] | None, **settings: Any) -> Any:
    named = {f"m{i}": model for i, model in enumerate(models)}
    known = random_statistics(method, SHAPES, len(models))
    return polyak.merge_state_dicts(named, method=method.name, base=base, statistics=known, **settings)


def assert_finite(found: dict[str, Any]) -> None:
    assert {name: tensor.shape for name, tensor in found.items()} == SHAPES
    for name, tensor in found.items():
        assert np.isfinite(tensor).all(), name


@EVERY
def test_experts_that_are_all_the_base_give_the_base(method: Method):
    low, high = method.models
    models, base = family(method, high or max(low, 3), spread=0)
    found = merged(method, models, base)
    for name, tensor in (base or models[0]).items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-6, atol=1e-7)


@EVERY
def test_one_expert_that_learned_nothing_does_no_harm(method: Method):
    low, high = method.models
    models, base = family(method, high or max(low, 3))
    models[0] = {n: t.copy() for n, t in base.items()} if base else models[0]
    assert_finite(merged(method, models, base))


@EVERY
def test_tensors_of_zeros_stay_zeros(method: Method):
    low, high = method.models
    zeros = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    found = merged(method, [zeros] * (high or max(low, 3)), zeros if method.uses_base else None)
    assert all(not tensor.any() for tensor in found.values())


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("models", [1, 2, 30])
def test_any_number_of_models_is_merged_or_refused_by_name(method: Method, models: int):
    experts, base = family(method, models)
    low, high = method.models
    if low <= models <= (high or models):
        assert_finite(merged(method, experts, base))
    else:
        with pytest.raises(PolyakError, match=f"{method.name!r} merges .*; got {models}"):
            merged(method, experts, base)


@pytest.mark.slow
@EVERY
def test_models_of_a_thousandth_and_of_a_thousand_times_the_size(method: Method):
    low, high = method.models
    models, base = family(method, high or max(low, 3))
    for factor in (1e-3, 1e3):
        scaled = [{n: np.asarray(t * np.float32(factor)) for n, t in model.items()} for model in (*models, base or {})]
        assert_finite(merged(method, scaled[:-1], scaled[-1] or None))


@pytest.mark.slow
@EVERY
def test_settings_out_of_range_are_refused_before_anything_is_merged(method: Method):
    low, high = method.models
    models, base = family(method, high or max(low, 3))
    for name, setting in method.settings.items():
        bad = [value for value in (-1e9, 1e9, "no such word", float("nan")) if setting.problem_with(value)]
        assert bad, name
        for value in bad:
            with pytest.raises(PolyakError, match=f"{name!r} of method {method.name!r}|{name}"):
                merged(method, models, base, **{name: value})


@EVERY
def test_a_method_that_needs_a_base_says_so(method: Method):
    low, high = method.models
    models, _ = family(method, high or max(low, 3))
    if method.needs_base:
        with pytest.raises(PolyakError, match="base"):
            merged(method, models, None)
    else:
        assert_finite(merged(method, models, None))


@EVERY
def test_one_broken_entry_is_refused_with_its_place(method: Method):
    low, high = method.models
    models, base = family(method, high or max(low, 3))
    models[-1]["layers.0.w"][2, 3] = np.nan
    with pytest.raises(PolyakError, match=r"'layers.0.w'.*nan.*\[2, 3\]"):
        merged(method, models, base)


@EVERY
def test_the_default_settings_are_allowed(method: Method):
    low, high = method.models
    k = high or max(low, 3)
    assert set(method.bind(testing.uneven(method, k), k)) == set(method.settings)
    assert all(setting.problem_with(setting.default) is None for setting in method.settings.values())


def test_the_order_of_methods_is_that_of_their_names_whatever_was_asked_for_first() -> None:
    code = (
        "import sys; from polyak.methods import load_all, registry, resolve; resolve('ties');"
        "assert 'polyak.methods.slerp' not in sys.modules; load_all(); assert list(registry) == sorted(registry)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
