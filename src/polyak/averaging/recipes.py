"""The recipe of an average of a run's checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ..errors import Mismatch
from ..recipe import Factorisation, Model, Recipe, Source
from .choosing import is_higher_better, metric_of
from .decay import curve_weights
from .power_function import stepwise
from .runs import RunCheckpoint
from .weighting import Weighting, by_metric, exponential

Space = Literal["factors", "product"]
ADAPTER = "adapter_config.json"


def averaged(
    run: Sequence[RunCheckpoint],
    weighting: Weighting,
    *,
    space: Space = "product",
    rank: int | None = None,
    key: str | None = None,
    strip_prefix: str | None = None,
) -> Recipe:
    """The recipe of a run's average: `linear`, with the weights, and their derivation as provenance.

    Adapters (folders with an adapter_config.json) are averaged as an adapter: their `product`s B A, exactly, or their
    `factors` A and B separately, as most tools do, which gives another result.

    Args:
        run: The checkpoints to average, by step.
        weighting: The weights of the checkpoints.
        space: Average the products of an adapter's factors, or the factors.
        rank: Maximum rank of a module of an averaged adapter (default: no limit).
        key: Key of the state dict in pickled checkpoints.
        strip_prefix: Prefix to strip from tensor names.

    Raises:
        SettingError: the weighting does not fit the metrics.
        Mismatch: some checkpoints are adapters and others are not.
    """
    provenance = _provenance(run, weighting)
    weights = weights_of(run, weighting)
    return combined(run, weights, provenance, space=space, rank=rank, key=key, strip_prefix=strip_prefix)


def combined(
    checkpoints: Sequence[RunCheckpoint],
    weights: Sequence[float],
    provenance: Mapping[str, Any],
    *,
    space: Space = "product",
    rank: int | None = None,
    key: str | None = None,
    strip_prefix: str | None = None,
) -> Recipe:
    """The recipe of a weighted average of checkpoints with different names; other arguments as for `averaged`.

    Raises:
        Mismatch: some checkpoints are adapters and others are not.
    """
    adapters = [(checkpoint.path / ADAPTER).is_file() for checkpoint in checkpoints]
    if any(adapters) and not all(adapters):
        adapter, whole = checkpoints[adapters.index(True)].name, checkpoints[adapters.index(False)].name
        raise Mismatch(f"{adapter} is an adapter and {whole} is not. Average adapters or whole models, not both.")
    sources = [Source(str(checkpoint.path.resolve()), None, (), key, strip_prefix) for checkpoint in checkpoints]
    models = tuple(
        Model(checkpoint.name, source, _frozen({"weight": weight}))
        for checkpoint, source, weight in zip(checkpoints, sources, weights, strict=True)
    )
    recipe = Recipe("linear", models, provenance=_frozen(provenance), folder=Path())
    if any(adapters):
        return replace(recipe, adapter=Factorisation(rank=rank, space=space))
    return replace(recipe, buffers="last")  # counters, as at the end of the run


def relative_to(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe for a file in `folder`, with paths relative to it: run and recipe can be moved together."""
    home = folder.resolve()
    models = tuple(
        replace(model, source=replace(model.source, path=_relative(model.source.path, home))) for model in recipe.models
    )
    return replace(recipe, models=models, folder=folder)


def _relative(path: str | None, home: Path) -> str | None:
    if path is None:
        return None
    try:
        return Path(os.path.relpath(path, home)).as_posix()
    except ValueError:  # another drive of Windows
        return path


def weights_of(run: Sequence[RunCheckpoint], weighting: Weighting) -> list[float]:
    """The weight of each checkpoint; they sum to 1."""
    if weighting.by == "uniform":
        return [1 / len(run)] * len(run)
    if weighting.by in ("ema", "ema-raw"):
        return exponential(len(run), weighting.decay, normalised=weighting.by == "ema")
    if weighting.by == "decay":
        return curve_weights(len(run), weighting.curve)
    if weighting.by == "posthoc-ema":
        return list(stepwise([checkpoint.step for checkpoint in run], weighting.width).coefficients)
    values = metric_of(run, weighting.by)
    higher = is_higher_better(weighting.by, weighting.higher_is_better)
    return by_metric(values, weighting.form, weighting.penalty, higher_is_better=higher)


def _provenance(run: Sequence[RunCheckpoint], weighting: Weighting) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "learned_by": "average",
        "by": weighting.by,
        "steps": [checkpoint.step for checkpoint in run],
    }
    if weighting.by in ("ema", "ema-raw"):
        return provenance | {"decay": weighting.decay}
    if weighting.by == "decay":
        return provenance | {"curve": weighting.curve}
    if weighting.by == "posthoc-ema":
        correlation = stepwise([checkpoint.step for checkpoint in run], weighting.width).correlation
        return provenance | {"width": weighting.width, "correlation": correlation}
    if weighting.by == "uniform":
        return provenance
    values = metric_of(run, weighting.by)
    return provenance | {"form": weighting.form, "penalty": weighting.penalty, "metric": values}


def _frozen(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(settings))
