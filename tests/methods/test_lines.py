"""LiNeS with a measured alpha: against the formula in float64, over a whole model and its layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak.methods import load_all, resolve

from ..engine.conftest import write_model

load_all()
SHAPES = {"embed.weight": (5, 3), **{f"layers.{i}.w": (4, 3) for i in range(3)}}


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_alpha_is_the_ratio_of_norms_over_the_whole_model_and_beta_grows_along_the_layers(tmp_path: Path):
    base, a, b = drawn(0), drawn(1), drawn(2)
    for name, tensors in {"base": base, "a": a, "b": b}.items():
        write_model(tmp_path / name, tensors)
    merge = {"base": "base", "method": "magmax", "models": ["a", "b"]}
    recipe = {
        "base": "base",
        "method": "lines",
        "models": [{"name": "merged", "recipe": merge}, "a", "b"],
        "settings": {"beta": {"gradient": [0, 0.5], "outside": 0}},
    }
    (tmp_path / "lines.json").write_text(json.dumps(recipe))
    polyak.merge(tmp_path / "lines.json", tmp_path / "out")
    deltas = {name: np.stack([one[name].astype(float) - base[name] for one in (a, b)]) for name in SHAPES}
    merged = {n: np.where(np.abs(d[0]) >= np.abs(d[1]), d[0], d[1]) for n, d in deltas.items()}
    alpha = sum(np.abs(d.sum(0)).sum() for d in deltas.values()) / sum(np.abs(m).sum() for m in merged.values()) / 2
    slope = {"embed.weight": 0, "layers.0.w": 0, "layers.1.w": 0.25, "layers.2.w": 0.5}
    with polyak.open(tmp_path / "out") as found:
        for name, tensor in merged.items():
            wanted = base[name] + (alpha + slope[name]) * tensor
            np.testing.assert_allclose(found.read(name), wanted, rtol=2e-6, atol=1e-6, err_msg=name)


def test_of_task_arithmetic_alpha_is_one_over_the_number_of_models():
    rng = np.random.default_rng(0)
    base, taus = rng.standard_normal((4, 3)), rng.standard_normal((5, 4, 3))
    stack = base + np.concatenate([taus.sum(axis=0, keepdims=True), taus])
    np.testing.assert_allclose(resolve("lines")(stack, base), base + taus.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize(("alpha", "factor"), [(0.25, 0.75), (0.0, 0.6)])
def test_a_merge_of_no_length_stays_the_base_and_a_number_replaces_what_is_measured(alpha: float, factor: float):
    base, none = np.ones((2, 2)), np.ones((2, 2))
    np.testing.assert_array_equal(resolve("lines")(np.stack([none, none, none]), base, alpha=alpha, beta=0.5), base)
    stack = np.stack([base + 1, base + 0.1, base + 0.1])
    np.testing.assert_allclose(resolve("lines")(stack, base, alpha=alpha, beta=0.5), base + factor, rtol=1e-12)
