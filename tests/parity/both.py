"""One recipe, carried out by mergekit and by polyak."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

import polyak


def with_mergekit(recipe: Path, out: Path, seed: int = 0) -> Path:
    """Do what `mergekit-yaml` does, without the seconds that it takes to start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import yaml
        from mergekit.config import MergeConfiguration
        from mergekit.io.tasks import LoaderCache
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        LoaderCache.loaders.clear()  # it is kept by relative path, for the life of the process
        config = MergeConfiguration.model_validate(yaml.safe_load(recipe.read_text()))
        run_merge(config, str(out), MergeOptions(quiet=True, write_model_card=False, random_seed=seed))
    return out


def with_polyak(recipe: Path, out: Path, seed: int = 0) -> Path:
    """Do what `polyak merge` does; mergekit's files say no seed, so it is given here."""
    polyak.merge(replace(polyak.load_recipe(recipe), seed=seed), out, workers=1)
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model, in the dtype that they are stored in."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    return found
