"""The surroundings of a unit: its own folder, the results of earlier units, and a way to report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputChanged
from ..events import Notice, UnitAdvanced, Watcher, ignore
from ..storage import write_whole
from ._units import Results

METRICS = "metrics.jsonl"  # in the folder of a unit


@dataclass(frozen=True)
class Desk:
    """The surroundings of a unit: a folder to write into, results of earlier units, and a way to report.

    Attributes:
        name: The unit's name.
        folder: The folder that it writes into.
        units: The folder that holds those of finished units.
        results: Results of earlier stages, by unit; units that failed are not among them.
        failed: Why units of earlier stages failed.
        watcher: Receives events.
    """

    name: str
    folder: Path
    units: Path
    results: Results = field(default_factory=dict[str, Any])
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    watcher: Watcher = ignore

    def folder_of(self, unit: str) -> Path:
        """The folder of a unit of an earlier stage.

        Raises:
            InputChanged: it is gone.
        """
        folder = self.units / unit
        if not folder.is_dir():
            raise InputChanged(f"{folder} is gone; the run needs it. Run again with --resume: the unit is done again.")
        return folder

    def advance(self, count: int = 1) -> None:
        """Report steps done."""
        self.watcher(UnitAdvanced(self.name, count))

    def say(self, text: str) -> None:
        """Report something that the user should know."""
        self.watcher(Notice(f"{self.name}: {text}"))

    def measured(self, **numbers: Any) -> None:
        """Append a line to the metrics of this unit."""
        with (self.folder / METRICS).open("a", encoding="utf-8", newline="") as file:
            file.write(f"{json.dumps({name: _plain(value) for name, value in numbers.items()})}\n")

    def rewind(self, step: int) -> None:
        """Forget metrics that a killed attempt measured after a step."""
        path = self.folder / METRICS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_whole(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return json.loads(line).get("step", 0)
    except ValueError:  # half a line: its attempt was killed
        return math.inf


def _plain(value: Any) -> Any:
    """NaN and infinity are text: they have no JSON."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
