"""Scores kept on disk, a file for each pair of model and task; a damaged file is as good as none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import write_whole
from ._api import Outcome


class Cache:
    """A folder of files that appear whole or not at all, so that any number of processes may share it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def read(self, model: str, task: str) -> Outcome | None:
        """What is kept for a model and a task, by their digests; None if nothing sound is."""
        try:
            data: Any = json.loads(self._path(model, task).read_text(encoding="utf-8"))
            found = Outcome(
                tuple(int(i) for i in data["examples"]),
                np.array(data["values"], np.float64),
                np.array(data["weights"], np.float64),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        n = len(found.examples)
        sound = n and found.values.shape == found.weights.shape == (n,) and np.isfinite(found.values).all()
        return found if sound and (data.get("model"), data.get("task")) == (model, task) else None

    def write(self, model: str, task: str, outcome: Outcome, *, about: Mapping[str, str]) -> None:
        """Keep the scores of a model on a task.

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
