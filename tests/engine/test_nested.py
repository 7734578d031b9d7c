"""A nested merge is computed also where something lies on it."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest

import polyak
from polyak.engine import run, tuning
from polyak.engine.nested import TensorCache
from polyak.engine.step import evaluate as tiles

from .conftest import random_family, write_model


def test_a_nested_merge_without_a_prefix_is_its_result_without_it(tmp_path):
    for name, tensors in random_family(shapes={"module.layers.0.w": (64, 96), "module.b": (7,)}).items():
        write_model(tmp_path / name, tensors)
    inner = {"models": [str(tmp_path / "m0"), str(tmp_path / "m1")], "method": "linear", "dtype": "float32"}
    polyak.merge(inner, tmp_path / "inner")
    outer = {"name": "inner", "strip_prefix": "module."}
    for out, source in {"nested": {"recipe": inner}, "written": {"path": str(tmp_path / "inner")}}.items():
        polyak.merge({"models": [outer | source], "method": "passthrough", "settings": {"scale": 2}}, tmp_path / out)
    with polyak.open(tmp_path / "nested") as nested, polyak.open(tmp_path / "written") as written:
        assert set(nested.specs) == {"layers.0.w", "b"}
        for name in written.specs:
            assert np.array_equal(nested.read(name), written.read(name))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("method", "settings", "passes"), [("linear", {}, 1), ("ties", {"density": 0.3}, 2)])
def test_a_nested_merge_of_whole_matrices_is_computed_once_a_pass(
    tmp_path, monkeypatch, workers, method, settings, passes
):
    shapes = {f"layers.{i}.w": (96, 80 + 16 * i) for i in range(5)}
    for name, tensors in random_family(shapes=shapes).items():
        write_model(tmp_path / name, tensors)
    base = str(tmp_path / "base")
    inner = {"base": base, "models": [str(tmp_path / "m0"), str(tmp_path / "m1")], "method": "iso_c"}
    inner |= {"dtype": "float32"}
    polyak.merge(inner, tmp_path / "inner")
    monkeypatch.setattr(tuning, "READ_NBYTES", 8192)
    whole, merged = tiles._whole, []
    monkeypatch.setattr(tiles, "_whole", lambda prepared, loaded: (merged.append(1), whole(prepared, loaded))[1])
    for out, source in {"nested": {"recipe": inner}, "written": {"path": str(tmp_path / "inner")}}.items():
        models = [{"name": "inner", **source}, str(tmp_path / "m1")]
        recipe = {"base": base, "models": models, "method": method, "settings": settings}
        run(polyak.plan(recipe), tmp_path / out, workers=workers, tile=1024)
    assert len(merged) == passes * len(shapes)  # these are small, and passed over together
    with polyak.open(tmp_path / "nested") as nested, polyak.open(tmp_path / "written") as written:
        assert all(np.array_equal(nested.read(name), written.read(name)) for name in shapes)


def test_what_is_kept_of_a_nested_merge_is_bounded_and_computed_once_whoever_asks():
    kept, computed = TensorCache(2), []

    def get(name):
        return kept.get(name, lambda: (computed.append(name), sleep(0.02), np.zeros(3, np.float32))[2])

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(get, ["a"] * 4))
    assert computed == ["a"]
    assert all(one is found[0] for one in found)
    for name in ("b", "c", "b", "c", "a"):
        get(name)
    assert computed == ["a", "b", "c", "a"]


def test_a_failed_computation_is_not_kept():
    kept = TensorCache(2)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: np.zeros(1 // 0, np.float32))
    assert kept.get("a", lambda: np.ones(1, np.float32)) == 1
