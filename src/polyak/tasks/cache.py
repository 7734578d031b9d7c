"""Scores cached on disk, one file per pair of model and task; corrupt entries are ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import write_whole
from ._batch import Outcome


class Cache:
    """A folder of cached scores; files are written atomically, so that any number of processes may share it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def read(self, model: str, task: str) -> Outcome | None:
        """The cached scores of a model on a task, by their digests; None if there are none, or they are corrupt."""
        try:
            data: Any = json.loads(self._path(model, task).read_text(encoding="utf-8"))
            outcome = Outcome(
                tuple(int(i) for i in data["examples"]),
                np.array(data["values"], np.float64),
                np.array(data["weights"], np.float64),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        n = len(outcome.examples)
        sound = n and outcome.values.shape == outcome.weights.shape == (n,) and np.isfinite(outcome.values).all()
        return outcome if sound and (data.get("model"), data.get("task")) == (model, task) else None

    def write(self, model: str, task: str, outcome: Outcome, *, about: Mapping[str, str]) -> None:
        """Cache the scores of a model on a task.

        Raises:
            OutputError: the folder cannot be written to.
        """
        data = {
            "model": model,
            "task": task,
            "about": dict(about),
            "examples": list(outcome.examples),
            "values": outcome.values.tolist(),
            "weights": outcome.weights.tolist(),
        }
        write_whole(self._path(model, task), json.dumps(data))

    def _path(self, model: str, task: str) -> Path:
        return self.folder / f"{model}-{task}.json"
