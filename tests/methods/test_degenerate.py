"""Every method on models that leave little to merge: alone or thirty, unmoved, all zero, without full rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak
from polyak.errors import SettingError
from polyak.methods import REQUIRED, Method, load_all, registry

from ..engine.conftest import write_model

load_all()

SHAPES = {"layers.0.w": (6, 5), "layers.1.w": (5, 6), "b": (6,), "one": (1,), "conv": (4, 3, 2, 2), "scale": ()}
Tensors = Mapping[str, np.ndarray]


def drawn(seed: int, spread: float = 1.0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(0, spread, shape), np.float32) for name, shape in SHAPES.items()}


def zero() -> Tensors:
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def moved(base: Tensors, seed: int) -> Tensors:
    return {name: np.asarray(base[name] + step, np.float32) for name, step in drawn(seed, 0.02).items()}


def along_one(base: Tensors, seed: int) -> Tensors:
    """Moved by matrices of rank one, vectors by one number."""
    ones = {name: np.full_like(tensor, 0.01 * seed) for name, tensor in base.items()}
    return {name: np.asarray(base[name] + step, np.float32) for name, step in ones.items()}


BASE = drawn(0)
FAMILIES: Mapping[str, tuple[Tensors, Callable[[int], list[Tensors]]]] = {
    "one model": (BASE, lambda _: [moved(BASE, 1)]),
    "as many as usual": (BASE, lambda k: [moved(BASE, i + 1) for i in range(k)]),
    "thirty models": (BASE, lambda _: [moved(BASE, i + 1) for i in range(30)]),
    "all equal to the base": (BASE, lambda k: [BASE] * k),
    "one moved, the others equal to the base": (BASE, lambda k: [moved(BASE, 1), *[BASE] * (k - 1)]),
    "all the same": (BASE, lambda k: [moved(BASE, 1)] * k),
    "opposites": (zero(), lambda k: [{n: (-1) ** i * t for n, t in BASE.items()} for i in range(k)]),
    "all zero": (zero(), lambda k: [zero()] * k),
    "matrices of rank one": (BASE, lambda k: [along_one(BASE, i + 1) for i in range(k)]),
}
UNMOVED = ("all equal to the base", "all zero")


def statistics(method: Method, k: int, kind: str) -> dict[str, dict[str, Tensors]]:
    """Statistics of every model: of nothing (`zero`), or of one input alone (`singular`)."""
    number = 0.0 if kind == "zero" else 1.0
    found: dict[str, dict[str, Tensors]] = {}
    for stat in method.statistics.values():
        words = {name: setting.default for name, setting in method.settings.items()}
        shapes = {name: stat.shape_for(shape, words) for name, shape in SHAPES.items() if len(shape) > 0}
        of_one = {name: np.full(shape, number, np.float32) for name, shape in shapes.items() if shape}
        found[stat.name] = {f"m{i}": of_one for i in range(k)}
    return found


def merged(method: Method, family: str, kind: str = "singular", **settings: Any) -> tuple[Tensors, Tensors]:
    """The base and the merge; the method's own refusal comes through."""
    base, models = FAMILIES[family]
    low, high = method.models
    given = models(high or max(low, 3))
    required = {s.name: 0.5 for s in method.settings.values() if s.default is REQUIRED and s.name not in settings}
    out = polyak.merge_state_dicts(
        {f"m{i}": model for i, model in enumerate(given)},
        method=method.name,
        base=base if method.uses_base else None,
        statistics=statistics(method, len(given), kind),
        **required,
        **settings,
    )
    return base, out


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", registry.values(), ids=registry)
def test_a_merge_of_little_is_finite_or_refused_by_name(method: Method, family: str):
    for kind in ("singular", "zero") if method.statistics else ("singular",):
        try:
            base, out = merged(method, family, kind)
        except SettingError as error:
            low, high = method.models
            count = {"one model": 1, "thirty models": 30}[family]  # of other families there are as many as it takes
            assert not low <= count <= (high or count)
            assert f"got {count}" in str(error)
            return
        for name, tensor in out.items():
            assert np.isfinite(tensor).all(), name
            if family in UNMOVED:
                np.testing.assert_allclose(tensor, base[name], atol=1e-6, err_msg=name)


def words_of(method: Method) -> Iterator[dict[str, Any]]:
    """Each word and switch that is not the default, one at a time."""
    for name, setting in method.settings.items():
        values = (True, False) if setting.kind is bool else setting.kind if isinstance(setting.kind, tuple) else ()
        yield from ({name: value} for value in values if value != setting.default)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in registry.values() if not m.statistics], ids=lambda m: m.name)
def test_no_word_or_switch_makes_numbers_out_of_nothing(method: Method):
    for settings in words_of(method):
        for family in ("all equal to the base", "opposites"):
            base, out = merged(method, family, **settings)
            for name, tensor in out.items():
                assert np.isfinite(tensor).all(), (settings, name)
                if family in UNMOVED and method.uses_base:
                    np.testing.assert_allclose(tensor, base[name], atol=1e-6, err_msg=f"{settings}, {name}")


def test_a_merge_of_thirty_files_is_a_merge_of_thirty(tmp_path: Path):
    models = [str(write_model(tmp_path / f"m{i}", moved(BASE, i))) for i in range(30)]
    polyak.merge({"method": "linear", "models": models}, tmp_path / "out")
    with polyak.open(tmp_path / "out") as found:
        wanted = np.mean([moved(BASE, i)["b"] for i in range(30)], axis=0)
        np.testing.assert_allclose(found.read("b"), wanted, rtol=1e-6)
