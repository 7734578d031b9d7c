"""Whole matrices merged by torch: on the CPU here, which takes the same way as CUDA."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import polyak
from polyak import methods
from polyak.cli import app
from polyak.engine.step.device import device_of
from polyak.errors import CannotResume, SettingError
from polyak.inspection.verification import verify
from polyak.methods import Law

from .conftest import random_family, write_model

methods.load_all()
WHOLE = sorted(
    one.name
    for one in methods.registry.values()
    if one.laws.isdisjoint((Law.ELEMENTWISE, Law.ROWS)) and one.fn.__module__.startswith("polyak.methods.")
)
DATA_FREE = [name for name in WHOLE if not methods.resolve(name).statistics]


def torch():
    return pytest.importorskip("torch")


def family(shapes):
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    experts = [{n: t + 0.1 * rng.standard_normal(t.shape, dtype=np.float32) for n, t in base.items()} for _ in range(3)]
    return base, experts


@pytest.mark.parametrize("method", DATA_FREE)
def test_methods_on_whole_tensors_give_the_same_by_torch(method):
    torch()
    base, experts = family({"large": (150, 140), "wide": (6, 9), "vector": (7,)})
    low, high = methods.resolve(method).models
    given = experts[: min(max(low, 3), high or 3)]
    by_numpy = polyak.merge_state_dicts(given, method=method, base=base)
    by_torch = polyak.merge_state_dicts(given, method=method, base=base, device="torch-cpu")
    for name, wanted in by_numpy.items():
        np.testing.assert_allclose(by_torch[name], wanted, atol=2e-5 * np.abs(wanted - base[name]).max() + 1e-6)
    assert np.array_equal(by_torch["vector"], by_numpy["vector"])


@pytest.mark.parametrize("method", sorted({*WHOLE} - {*DATA_FREE}))
def test_methods_with_statistics_give_the_same_by_torch(method):
    torch()
    base, experts = family({"w": (6, 9)})
    root = np.random.default_rng(1).standard_normal((3, 9, 20), dtype=np.float32)
    grams = [{"w": one @ one.T} for one in root]
    kind = next(stat.name for stat in methods.resolve(method).statistics.values() if stat.shape == "gram")
    given = {"method": method, "base": base, "statistics": {kind: grams}}
    wanted = polyak.merge_state_dicts(experts, **given)["w"]
    found = polyak.merge_state_dicts(experts, **given, device="torch-cpu")["w"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_torch_is_what_merges(monkeypatch):
    given, put = [], torch().from_numpy
    monkeypatch.setattr(torch(), "from_numpy", lambda array: (given.append(array), put(array))[1])
    base, experts = family({"w": (5, 6), "b": (6,)})
    polyak.merge_state_dicts(experts, method="iso_c", base=base)
    assert not given
    polyak.merge_state_dicts(experts, method="iso_c", base=base, device="torch-cpu")
    assert {array.shape for array in given} == {(3, 5, 6), (5, 6)}


@pytest.fixture
def models(tmp_path):
    for name, tensors in random_family(shapes={"w": (12, 10), "b": (7,)}).items():
        write_model(tmp_path / name, tensors)
    base, one, two = (str(tmp_path / name) for name in ("base", "m0", "m1"))
    inner = {"base": base, "models": [one, two], "method": "iso_c"}
    return {"base": base, "models": [{"name": "inner", "recipe": inner}, one], "method": "tsv_m"}


def test_the_device_is_in_the_provenance_and_in_what_may_be_resumed(tmp_path, models):
    torch()
    polyak.merge(models, tmp_path / "cpu")
    polyak.merge(models, tmp_path / "torch", device="torch-cpu")
    said = [json.loads((tmp_path / out / "polyak.json").read_text()).get("device") for out in ("cpu", "torch")]
    assert said == [None, {"name": "torch-cpu", "said": f"torch-cpu, torch {torch().__version__}"}]
    for out in ("cpu", "torch"):
        assert set(verify(tmp_path / out, inputs=True).inputs.values()) == {"unchanged"}


def test_a_merge_is_not_resumed_on_another_device(tmp_path, models, monkeypatch):
    torch()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["polyak.engine.into_folder"]._Merge, "_write_sidecars", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            polyak.merge(models, tmp_path / "out", device="torch-cpu")
    with pytest.raises(CannotResume):
        polyak.merge(models, tmp_path / "out", resume=True)
    assert polyak.merge(models, tmp_path / "out", resume=True, device="torch-cpu").resumed > 0


def test_devices_that_are_not_there_are_refused_with_the_remedy(monkeypatch):
    with pytest.raises(SettingError, match="no device 'cudo': it is cpu, cuda, auto"):
        device_of("cudo")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingError, match=r"needs torch, .* pip install 'polyak\[torch\]'"):
        device_of("cuda")
    assert device_of("auto") is None
    assert device_of("cpu") is None


def test_cuda_without_a_gpu_is_refused_and_auto_takes_the_cpu(tmp_path, models, monkeypatch):
    monkeypatch.setattr(torch().cuda, "is_available", lambda: False)
    assert device_of("auto") is None
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(models))
    done = CliRunner().invoke(app, ["merge", str(recipe), str(tmp_path / "out"), "--device", "cuda"])
    assert isinstance(done.exception, SettingError)
    assert "torch finds no GPU" in str(done.exception)
    assert not (tmp_path / "out").exists()
    polyak.merge(models, tmp_path / "out", device="auto")


def test_auto_is_cuda_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch().cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch().cuda, "get_device_name", lambda: "a GPU")
    found = device_of("auto")
    assert found is not None
    assert found == device_of("cuda")
    assert found.said.startswith("cuda, a GPU, torch ")
