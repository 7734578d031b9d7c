"""The units that measure on the test split: models, and the ensemble of the copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint import Checkpoint, write_sparse
from ...checkpoint import open as open_checkpoint
from ...runs import Desk, UnitFailed
from ...tasks import Task, load_task
from .._models import live_model, scores
from .._setup import TEST
from .layers import MASKS, multiplications, read_masks
from .measures import accuracy, of_classifier, predictions
from .options import Options, model_in

COMPACT = "model.sparse"


def test(desk: Desk, given: tuple[Options, str]) -> dict[str, Any]:
    """Measure a model on the test split, and write it as a compact file if it is sparse."""
    options, unit = given
    if unit not in desk.results:
        return {"metrics": {}}  # it failed, and the report says why
    setup, folder = options.setup, desk.folder_of(unit)
    with open_checkpoint(model_in(folder)) as model:
        result = {"metrics": _measured(options, model, setup.task()), "shifted": _shifted(options, model)}
        if (folder / MASKS).exists():
            write_sparse(model, desk.folder / COMPACT)
            masks = read_masks(folder)
            result["layers"] = {n: float(1 - np.count_nonzero(model.read(n)) / mask.size) for n, mask in masks.items()}
            result["nbytes"] = {"dense": _nbytes(model_in(folder)), "compact": _nbytes(desk.folder)}
            (batch,) = setup.task().batches(TEST, limit=1, batch_size=1)
            whole, left = multiplications(live_model(setup, model), setup.task(), batch.to(setup.device), masks)
            result["multiplications"] = {"dense": whole, "sparse": left}
    return result


def test_ensemble(desk: Desk, given: tuple[Options, Sequence[str]]) -> dict[str, Any]:
    """Measure the mean of the copies' probabilities on the test split."""
    options, units = given
    task, drawn, labels = options.setup.task(), list[Any](), np.zeros(0, np.int64)
    for unit in units:
        if unit in desk.results:
            with open_checkpoint(model_in(desk.folder_of(unit))) as model:
                probabilities, labels = predictions(options.setup, model, task, TEST)
            drawn.append(probabilities)
    if not drawn:
        raise UnitFailed("there are no copies.")
    mean = np.mean(drawn, axis=0)
    return {"metrics": {"test": accuracy(mean, labels), **of_classifier(mean, labels)}}


def _measured(options: Options, model: Checkpoint, task: Task) -> dict[str, float]:
    metrics = scores(options.setup, model, (TEST,))
    if task.likelihood == "classification":
        metrics |= of_classifier(*predictions(options.setup, model, task, TEST))
    return metrics


def _shifted(options: Options, model: Checkpoint) -> dict[str, float]:
    values: dict[str, float] = {}
    for source in options.shifted:
        task = load_task(source, factory=options.setup.factory)
        assert isinstance(task, Task)
        values[task.name] = scores(options.setup, model, (TEST,), task)[TEST]
    return values


def _nbytes(folder: Path) -> int:
    """Bytes of the weights in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".sparse"))
