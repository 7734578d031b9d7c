"""Adapters for tests, written without PEFT; and what they add, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from polyak import checkpoint
from polyak.checkpoint._peft import read_adapter_settings

from ..docs.models import write_tensors

SHAPES = {"model.layers.0.q_proj": (12, 8), "model.layers.0.v_proj": (6, 8), "model.layers.1.q_proj": (12, 8)}


def write_adapter(
    folder: Path, seed: int = 0, rank: int = 2, shapes: dict[str, tuple[int, ...]] = SHAPES, *,
    ranks: dict[str, int] | None = None, tensors: dict[str, Any] | None = None, **config: Any,
) -> Path:  # fmt: skip
    """An adapter of random factors; `ranks` are those of some modules, `tensors` come beside or instead of factors."""
    rng = np.random.default_rng([seed, 1])
    factors: dict[str, Any] = {}
    for name, (rows, *columns) in shapes.items():
        r = (ranks or {}).get(name, rank)
        at = f"base_model.model.{name}"
        factors[f"{at}.lora_A.weight"] = rng.normal(0, 0.3, (r, *columns)).astype(np.float32)
        factors[f"{at}.lora_B.weight"] = rng.normal(0, 0.3, (rows, r, *[1] * (len(columns) - 1))).astype(np.float32)
    given = {name: value for name, value in {**factors, **(tensors or {})}.items() if value is not None}
    write_tensors(folder / "adapter_model.safetensors", given)
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "base_model_name_or_path": "base"}
    said |= {"target_modules": sorted({name.rpartition(".")[2] for name in shapes}), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(said | ({"rank_pattern": ranks} if ranks else {}) | config))
    return folder


def deltas(folder: Path) -> dict[str, np.ndarray]:
    """s B A of every module, in float64, as the weight has it."""
    settings = read_adapter_settings(folder)
    with checkpoint.open(folder / "adapter_model.safetensors") as held:
        factors = {name: held.read(name).astype(np.float64) for name in held.specs}
    found: dict[str, np.ndarray] = {}
    for name, a in factors.items():
        if "lora_A" not in name:
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = factors[name.replace("lora_A", "lora_B")]
        product = settings.scaling_of(module) * (b.reshape(len(b), -1) @ a.reshape(len(a), -1))
        found[module] = product.reshape(len(b), *a.shape[1:])
    return found


def tensors(folder: Path) -> dict[str, np.ndarray]:
    with checkpoint.open(folder / "adapter_model.safetensors") as held:
        return {name: held.read(name) for name in held.specs}


def configuration(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


def relative_error(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Over all modules together, in the Frobenius norm."""
    assert set(found) == set(wanted)
    error = sum(np.sum((found[n] - wanted[n]) ** 2) for n in wanted)
    return float(np.sqrt(error / sum(np.sum(w**2) for w in wanted.values())))
