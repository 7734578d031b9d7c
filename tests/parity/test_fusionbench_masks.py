"""The masks of EMR and TALL against FusionBench's, which ports the authors' code.

FusionBench is looked for in this environment, or run by the Python that POLYAK_FUSION_BENCH_PYTHON names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak.checkpoint.safetensors import SafetensorsFile

from ..engine.conftest import write_model

THEIRS = """
import sys
import numpy, torch
from fusion_bench.method.emr_merging.utils import emr_merge
from fusion_bench.method.tall_mask.utils import generate_task_masks

given = {name: torch.from_numpy(array) for name, array in numpy.load(sys.argv[1]).items()}
names = [name.removeprefix("base/") for name in given if name.startswith("base/")]
deltas = [{name: given[f"m{i}/{name}"] - given[f"base/{name}"] for name in names} for i in range(3)]
unified, masks, rescalers = emr_merge(deltas)
found = {"rescalers": rescalers} | {f"unified/{name}": unified[name] for name in names}
found |= {f"emr/{i}/{name}": masks[name][i] for name in names for i in range(3)}
flat = [torch.cat([given[f"{who}/{name}"].ravel() for name in names]) for who in ("base", "m0", "m1", "m2")]
models = torch.stack(flat[1:])
found["tall"] = generate_task_masks(models - flat[0], models, flat[0], tall_mask_lambda=0.5)
numpy.savez(sys.argv[2], **{name: tensor.numpy() for name, tensor in found.items()})
"""
SHAPES = {"w": (48, 40), "b": (48,), "scale": (1,)}


@pytest.fixture(scope="module")
def python() -> str:
    """The Python that has FusionBench."""
    if named := os.environ.get("POLYAK_FUSION_BENCH_PYTHON"):
        return named
    if "fusion_bench" not in sys.modules and find_spec("fusion_bench") is None:  # another test may have imported it
        pytest.skip("FusionBench is not installed; `make parity` does it")
    return sys.executable


@pytest.fixture(scope="module")
def both(python: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A family on disk, merged by polyak, and what FusionBench makes of it. Deltas are exact in float32."""
    folder = tmp_path_factory.mktemp("fusionbench")
    rng = np.random.default_rng(0)
    base = {n: (np.rint(rng.normal(0, 1, s) * 2**12) / 2**12).astype(np.float32) for n, s in SHAPES.items()}
    family = {"base": base}
    for i in range(3):
        family[f"m{i}"] = {
            n: (t + np.rint(rng.normal(0, 0.1, t.shape) * 2**12) / 2**12).astype(np.float32) for n, t in base.items()
        }
    for name, tensors in family.items():
        write_model(folder / name, tensors)
    np.savez(folder / "given.npz", **{f"{who}/{n}": t for who, tensors in family.items() for n, t in tensors.items()})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-W", "ignore", "-c", THEIRS, str(folder / "given.npz"), str(folder / "theirs.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    models = {"base": str(folder / "base"), "models": [str(folder / f"m{i}") for i in range(3)]}
    for method, settings in {"emr": {"rescale": "official"}, "tall_masks": {"tall_lambda": 0.5}}.items():
        polyak.merge(models | {"method": method, "settings": settings}, folder / method)
    return folder, dict(np.load(folder / "theirs.npz"))


def bits(folder: Path, method: str, model: int, name: str) -> np.ndarray:
    packed = SafetensorsFile(folder / method / "masks" / f"m{model}.safetensors").read(f"{name}:mask")
    shape = SHAPES[name]
    return np.unpackbits(packed, bitorder="little")[: int(np.prod(shape))].reshape(shape).astype(bool)


def test_the_unified_model_is_theirs(both: tuple[Path, dict[str, np.ndarray]]):
    folder, theirs = both
    with polyak.open(folder / "emr") as ours, polyak.open(folder / "base") as base:
        for name in SHAPES:
            np.testing.assert_array_equal(ours.read(name) - base.read(name), theirs[f"unified/{name}"])


def test_the_masks_of_emr_are_theirs(both: tuple[Path, dict[str, np.ndarray]]):
    folder, theirs = both
    for model in range(3):
        for name in SHAPES:
            np.testing.assert_array_equal(bits(folder, "emr", model, name), theirs[f"emr/{model}/{name}"])


def test_the_official_rescalers_are_theirs(both: tuple[Path, dict[str, np.ndarray]]):
    folder, theirs = both
    found = [SafetensorsFile(folder / "emr" / "masks" / f"m{i}.safetensors").read("w:scale") for i in range(3)]
    np.testing.assert_allclose(found, theirs["rescalers"], rtol=1e-6)


def test_tall_masks_are_theirs(both: tuple[Path, dict[str, np.ndarray]]):
    folder, theirs = both
    for model in range(3):
        found = np.concatenate([bits(folder, "tall_masks", model, name).ravel() for name in SHAPES])
        np.testing.assert_array_equal(found, theirs["tall"][model].astype(bool))
