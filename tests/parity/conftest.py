"""Families that are written once a session, and recipes run on them by both tools."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]
Both = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A family of a shape, stored in a dtype."""
    import torch

    from .families import LAYERS, write_family

    written: dict[tuple[object, ...], Path] = {}

    def family(shape: str, dtype: str = "float32", layers: int = LAYERS) -> Path:
        if (key := (shape, dtype, layers)) not in written:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                folder = tmp_path_factory.mktemp(f"{shape}-{dtype}")
                written[key] = write_family(folder, shape, getattr(torch, dtype), layers=layers)
        return written[key]

    return family


@pytest.fixture
def run_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Run one file, unchanged, in mergekit and in polyak: (mergekit's output, polyak's)."""
    from .both import with_mergekit, with_polyak

    def both(family: Path, text: str, seed: int = 0) -> tuple[Path, Path]:
        monkeypatch.chdir(family)
        recipe = tmp_path / "recipe.yml"
        recipe.write_text(text)
        theirs, ours = tmp_path / f"mergekit-{seed}", tmp_path / f"polyak-{seed}"
        return with_mergekit(recipe, theirs, seed), with_polyak(recipe, ours, seed)

    return both
