"""The tasks as polyak reads them: files of examples, and a description of each task for each calibration seed."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from polyak.tasks import Task, read_task

from .data import Example, Examples, test, training, validation
from .models import Models
from .training import Settings


@dataclass(frozen=True)
class Draws:
    """How many examples of each task are used for what.

    Attributes:
        calibration: Of those that experts were trained on; drawn anew for each seed.
        validation: Of those that were kept apart in training; drawn anew for each seed.
        tests: The first of the test file.
    """

    calibration: int = 256
    validation: int = 64
    tests: int = 300


@dataclass(frozen=True)
class Board:
    """Writes descriptions of tasks into a folder, and reads them.

    Attributes:
        folder: For the files.
        models: Whose heads read the tasks.
        draws: How many examples.
    """

    folder: Path
    models: Models
    draws: Draws

    def tasks(self, seed: int, *, model: str = "") -> dict[str, Task]:
        """Each task with the examples of a seed, read with the head of its expert, or of one model for all."""
        found: dict[str, Task] = {}
        for name in self.models.tasks:
            task = read_task(self._description(name, seed, model or name))
            assert isinstance(task, Task)
            found[name] = task
        return found

    def _description(self, name: str, seed: int, model: str) -> Path:
        place = self.folder / f"{name}-{seed}-{model}.yaml"
        place.parent.mkdir(parents=True, exist_ok=True)
        splits = {
            "calibration": _some(training(name)[: self.models.examples], self.draws.calibration, seed),
            "validation": _some(validation(name), self.draws.validation, seed),
            "test": test(name)[: self.draws.tests],
        }
        told = {
            "kind": "text-classification",
            "name": name,
            "splits": {split: self._file(f"{name}-{split}-{seed}", rows) for split, rows in splits.items()},
            "model": str(self.models.base.absolute()),
            "pooling": "mean",
            "length": Settings().length,
            "heads": {"match": r"^classifier\.", "from": str(self.models.head(model, name).absolute())},
        }
        _write(place, yaml.safe_dump(told, sort_keys=False).encode())
        return place

    def _file(self, name: str, rows: Sequence[Example]) -> str:
        place = self.folder / f"{name}.jsonl.gz"
        text = "".join(json.dumps({"text": one.text, "label": one.label}) + "\n" for one in rows)
        _write(place, gzip.compress(text.encode(), mtime=0))
        return place.name


def _write(place: Path, content: bytes) -> None:
    """Whole or not at all: other processes read these files, and write the same."""
    unfinished = place.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(place)


def _some(examples: Examples, count: int, seed: int) -> Examples:
    return random.Random(seed).sample(examples, min(count, len(examples)))
