"""Merge an adapter into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engine import Report, run
from ..planning import plan
from ..recipe import Lora, Model, Recipe, Source


def bake(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    scale: float = 1.0,
    dtype: str | None = None,
    **options: Any,
) -> Report:
    """Write base + scale * s B A as a model, by a merge of one model with a `lora:`.

    Args:
        base: The model that the adapter was trained on.
        adapter: The adapter's folder.
        out: Output folder; it appears whole or not at all.
        scale: Factor of the update.
        dtype: Dtype of the result (default: that of each tensor in the base).
        **options: Those of `polyak.engine.run`: workers, memory, shard_nbytes, digest, resume, force, progress.

    Raises:
        CheckpointError: the adapter is damaged, of another kind, or does not fit the base.
        OutputError: the output folder exists, is in use or cannot be written, or is one of the inputs.
    """
    return run(plan(baking(base, adapter, scale, dtype)), out, **options)


def baking(base: str | Path, adapter: str | Path, scale: float, dtype: str | None) -> Recipe:
    """The recipe that merges an adapter into its base."""
    source = Source(path=str(base), lora=(Lora(str(adapter), scale),))
    return Recipe("passthrough", (Model("model", source),), dtype=dtype, door="bake")
