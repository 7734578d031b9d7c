"""Small families of models on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import layout
from polyak.methods import Method

SHAPES = {
    "embed_tokens.weight": (300, 32),
    "layers.0.w": (64, 96),
    "layers.0.b": (7,),
    "layers.1.w": (64, 96),
    "layers.1.b": (7,),
    "norm": (32,),
    "scale": (),
    "nothing": (0, 4),
}


def write_model(folder: Path, tensors: dict[str, np.ndarray], config: dict | None = None) -> Path:
    """A Hugging Face folder with the given tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    by_dtype = {spec.numpy: spec for spec in DTYPES.values()}
    specs = [TensorSpec(name, by_dtype[t.dtype], t.shape) for name, t in tensors.items()]
    head, offsets = layout(specs, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        for name, tensor in tensors.items():
            file.seek(offsets[name])
            file.write(np.ascontiguousarray(tensor).tobytes())
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "test", "torch_dtype": "bfloat16"}))
    return folder


def random_family(
    seed: int = 0, models: int = 3, dtype=ml_dtypes.bfloat16, shapes=SHAPES
) -> dict[str, dict[str, np.ndarray]]:
    """A base and fine-tunes of it, in memory."""
    rng = np.random.default_rng(seed)
    base = {
        n: rng.standard_normal(s, dtype=np.float32) if s else np.float32(rng.standard_normal())
        for n, s in shapes.items()
    }
    family = {"base": {n: np.asarray(t).astype(dtype) for n, t in base.items()}}
    for i in range(models):
        moved = {n: (np.asarray(t) + 0.01 * rng.standard_normal(np.shape(t))).astype(dtype) for n, t in base.items()}
        family[f"m{i}"] = moved
    return family


def tree_digest(folder: Path) -> dict[str, str]:
    """The digest of every file under a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def random_statistics(method: Method, shapes: dict[str, tuple[int, ...]], models: int, **settings) -> dict:
    """What a method asks for, of every tensor but `norm`: by the statistic's name and then the model's."""
    rng = np.random.default_rng(5)
    bound = method.bind(settings, models) if method.statistics else {}
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for stat in method.statistics.values():
        if not stat.applies(bound):
            continue
        for i in range(models):
            of_model = found.setdefault(stat.name, {}).setdefault(f"m{i}", {})
            for name, shape in shapes.items():
                size = stat.shape_for(shape, bound)
                if size is not None and name != "norm":
                    half = rng.standard_normal(size)
                    full = half @ half.T / len(half) if stat.shape == "gram" else half**2
                    of_model[name] = np.asarray(full, np.float32)
    return found


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A folder with `base`, `m0`, `m1`, `m2`."""
    for name, tensors in random_family().items():
        write_model(tmp_path / name, tensors)
    return tmp_path


def recipe_text(method: str = "ties", *, base: bool = True, models: int = 3, extra: str = "") -> str:
    """A recipe for the family."""
    lines = ["base: ./base"] if base else []
    lines += [
        "models:",
        *(f"  - {{path: ./m{i}, weight: {0.3 + 0.2 * i:.1f}}}" for i in range(models)),
        f"method: {method}",
        extra,
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def recipe(family: Path) -> Path:
    """A TIES recipe beside the family."""
    path = family / "recipe.yaml"
    path.write_text(recipe_text())
    return path
