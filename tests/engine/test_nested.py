"""A nested merge is computed also where something lies on it."""

import numpy as np

import polyak

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
