"""Merge methods against FusionBench, on plain modules.

FusionBench 0.2.33 has no PCB: `pcb` is held to numbers from its authors' code, in tests/methods.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fusion_bench", reason="FusionBench is not installed; `make parity` does it")
torch = pytest.importorskip("torch")

import polyak  # noqa: E402

SHAPES = [(24, 16), (16, 24), (20, 20)]
TASKS = 4


class Plain(torch.nn.Module):
    """A few layers of several shapes, in no particular architecture."""

    def __init__(self, seed: int = 0, base: Any = None) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(seed)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n, m) for m, n in SHAPES)
        with torch.no_grad():
            for name, one in self.named_parameters():
                noise = torch.randn(one.shape, generator=drawn)
                one.copy_(noise if base is None else base.get_parameter(name) + 0.02 * noise)


@pytest.fixture(scope="module")
def family() -> dict[str, Plain]:
    base = Plain()
    return {"_pretrained_": base} | {f"task-{i}": Plain(i + 1, base) for i in range(TASKS)}


def with_fusionbench(algorithm: Any, family: dict[str, Plain]) -> dict[str, np.ndarray]:
    from fusion_bench import BaseModelPool

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        merged = algorithm.run(BaseModelPool(copy.deepcopy(family)))  # it writes into the pretrained model
    return {name: tensor.detach().numpy() for name, tensor in merged.state_dict().items()}


def with_polyak(method: str, family: dict[str, Plain], **settings: Any) -> dict[str, np.ndarray]:
    states = {name: {n: t.numpy() for n, t in one.state_dict().items()} for name, one in family.items()}
    base = states.pop("_pretrained_")
    return polyak.merge_state_dicts(states, method=method, base=base, **settings)


def made(name: str, **options: Any) -> Any:
    """An algorithm of FusionBench; importing it takes seconds, and warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fusion_bench import method

        return getattr(method, name)(**options)


RIVALS = json.loads((Path(__file__).parents[2] / "docs" / "rivals.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RIVALS["FusionBench 0.2.33"].values())
def test_fusionbench_has_what_the_page_says(name: str):
    assert version("fusion_bench") == "0.2.33"
    module, _, what = name.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert hasattr(importlib.import_module(f"fusion_bench.method.{module}"), what)


CASES = [
    ("SimpleAverageAlgorithm", {}, "linear", {}),
    ("TaskArithmeticAlgorithm", {"scaling_factor": 0.3}, "task_arithmetic", {"scale": 0.3}),
    ("MagMaxAlgorithm", {}, "magmax", {"scale": 0.5}),
    ("MagMaxAlgorithm", {"scaling_factor": 1.3}, "magmax", {"scale": 1.3}),
    (
        "TiesMergingAlgorithm",
        {"scaling_factor": 0.3, "threshold": 20, "remove_keys": [], "merge_func": "sum"},
        "ties",
        {"scale": 0.3, "function": "sum", "granularity": "model", "zero_sum": "majority"},
    ),
    ("TaskSingularVectorMerging", {}, "tsv_m", {}),
    ("TaskSingularVectorMerging", {"alpha": 0.7}, "tsv_m", {"scale": 0.7}),
    ("TaskSingularVectorMerging", {"alpha": [1.0, 0.5, 2.0, 1.5]}, "tsv_m", {"weight": [1.0, 0.5, 2.0, 1.5]}),
    ("IsotropicMergingInCommonSubspace", {"scaling_factor": 1.3}, "iso_c", {"scale": 1.3}),
    (
        "IsotropicMergingInCommonAndTaskSubspace",
        {"scaling_factor": 1.0, "common_space_fraction": 0.6},
        "iso_cts",
        {"common": 0.6},
    ),
    ("WUDIMerging", {"iter_num": 300}, "wudi", {"vector_1d": "mean"}),
]


@pytest.mark.parametrize(("theirs", "options", "ours", "settings"), CASES)
def test_polyak_agrees_with_fusionbench(theirs: str, options: Any, ours: str, settings: Any, family: dict[str, Plain]):
    base = family["_pretrained_"].state_dict()
    wanted = with_fusionbench(made(theirs, **options), family)
    found = with_polyak(ours, family, **settings)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        moved = np.abs(wanted[name] - base[name].numpy()).max()
        assert moved > 0
        np.testing.assert_allclose(tensor, wanted[name], atol=1e-4 * moved, err_msg=name)


def test_model_stock_of_two_agrees_with_fusionbench(family: dict[str, Plain]):
    two = {name: family[name] for name in ("_pretrained_", "task-0", "task-1")}
    wanted, found = with_fusionbench(made("ModelStock"), two), with_polyak("model_stock", two, clamp=False)
    for name, tensor in found.items():
        moved = np.abs(two["task-0"].state_dict()[name].numpy() - tensor).max()
        np.testing.assert_allclose(tensor, wanted[name], atol=1e-4 * moved, err_msg=name)


def test_model_stock_of_more_differs_because_fusionbench_averages_angles_instead_of_cosines(family: dict[str, Plain]):
    wanted, found = with_fusionbench(made("ModelStock"), family), with_polyak("model_stock", family, clamp=False)
    base, *experts = ({n: t.double().numpy() for n, t in one.state_dict().items()} for one in family.values())
    for name in (f"layers.{i}.weight" for i in range(len(SHAPES))):
        deltas = np.stack([one[name] - base[name] for one in experts])
        for tensor, average in ((found, np.mean), (wanted, lambda cosines: np.cos(np.mean(np.arccos(cosines))))):
            ratio = share(average(cosines_of(deltas)))
            np.testing.assert_allclose(tensor[name], base[name] + ratio * deltas.mean(0), atol=1e-6, err_msg=name)


def cosines_of(deltas: np.ndarray) -> np.ndarray:
    flat = deltas.reshape(len(deltas), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat @ flat.T)[np.triu_indices(len(flat), 1)]


def share(cosine: float) -> float:
    return TASKS * cosine / (1 + (TASKS - 1) * cosine)


def test_svc_agrees_with_fusionbench(family: dict[str, Plain]):
    from fusion_bench.method.singular_value_calibration.utils import subspace_consistency_spectral_calibration

    for name in (f"layers.{i}.weight" for i in range(len(SHAPES))):
        base, *experts = (one.state_dict()[name] for one in family.values())
        merged = base + sum(expert - base for expert in experts)
        wanted = subspace_consistency_spectral_calibration(base, experts, merged, 0.25, torch.device("cpu"))
        stack = {str(i): {name: one.numpy()} for i, one in enumerate([merged, *experts])}
        found = polyak.merge_state_dicts(stack, method="svc", base={name: base.numpy()}, alpha=0.25)
        np.testing.assert_allclose(found[name], wanted.numpy(), atol=1e-5)
