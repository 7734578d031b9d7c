"""The checkpoints of a training run with their logged metrics."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from ..errors import CheckpointError, Mismatch

_TRAINER_STATE = "trainer_state.json"
_TRAINER_FOLDER = re.compile(r"checkpoint-(\d+)")
_LIGHTNING_FILE = re.compile(r"step=(\d+).*\.ckpt")
_LIGHTNING_LOG = "metrics.csv"
_OF_THE_LOG = ("epoch", "step", "grad_norm", "learning_rate", "total_flos")  # logged, but not metrics


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint of a run.

    Attributes:
        name: Its folder's or file's name.
        path: Its path.
        step: The training step after which it was saved.
        metrics: Logged metrics by name, each averaged since the previous checkpoint, because the training loss of one
            step is noisy.
    """

    name: str
    path: Path
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


def read_run(folder: str | Path, table: str | Path | None = None) -> list[RunCheckpoint]:
    """Find the checkpoints of a run and their logged metrics, sorted by step.

    A run is a folder that the Hugging Face Trainer wrote (`checkpoint-STEP` folders; the last one's
    `trainer_state.json` is the log) or that Lightning did (`*step=STEP*.ckpt` files, and the `metrics.csv` of its
    CSVLogger next to or below them), or the rows of a CSV table.

    Args:
        folder: The run's folder.
        table: A CSV with the columns `path` (relative to `folder`) and `step`, and one per metric, instead of the logs.

    Raises:
        CheckpointError: there are no checkpoints, or a log cannot be read.
    """
    folder = Path(folder)
    if table is not None:
        checkpoints = _from_table(folder, Path(table))
    elif not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder of a training run.")
    else:
        checkpoints = _of_trainer(folder) or _of_lightning(folder)
    if not checkpoints:
        raise CheckpointError(
            f"{folder} holds no checkpoints: neither folders checkpoint-STEP (Hugging Face Trainer) nor files "
            "*step=STEP*.ckpt (Lightning). List them in a CSV with the columns path, step and the metrics, and give "
            "it as --table."
        )
    return _by_step(checkpoints)


def _by_step(checkpoints: Iterable[RunCheckpoint]) -> list[RunCheckpoint]:
    ordered = sorted(checkpoints, key=lambda checkpoint: (checkpoint.step, checkpoint.name))
    for checkpoint, following in pairwise(ordered):
        if checkpoint.path.resolve() == following.path.resolve():
            raise Mismatch(f"{checkpoint.path} is listed twice.")
    return ordered


def _of_trainer(folder: Path) -> list[RunCheckpoint]:
    folders = {int(m[1]): p for p in folder.iterdir() if p.is_dir() and (m := _TRAINER_FOLDER.fullmatch(p.name))}
    if not folders:
        return []
    state = folders[max(folders)] / _TRAINER_STATE
    log = _trainer_log(state) if state.is_file() else []
    return [
        RunCheckpoint(path.name, path, step, metrics)
        for (step, path), metrics in zip(sorted(folders.items()), _since_the_last(sorted(folders), log), strict=True)
    ]


def _trainer_log(state: Path) -> list[tuple[int, dict[str, float]]]:
    try:
        history = json.loads(state.read_text(encoding="utf-8"))["log_history"]
        return [(int(entry["step"]), _numbers(entry)) for entry in history]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{state} is not a log of the Hugging Face Trainer: {error!r}.") from None


def _of_lightning(folder: Path) -> list[RunCheckpoint]:
    files = {p: int(m[1]) for p in sorted(folder.rglob("*.ckpt")) if (m := _LIGHTNING_FILE.search(p.name))}
    logs = sorted(folder.rglob(_LIGHTNING_LOG))
    if len(logs) > 1:
        raise CheckpointError(
            f"{folder} holds several logs, so several runs: give the folder of one, {logs[0].parent}."
        )
    rows = [(int(float(row["step"])), _numbers(row)) for log in logs for row in _rows(log, ("step",))]
    steps = sorted(set(files.values()))
    metrics = dict(zip(steps, _since_the_last(steps, rows), strict=True))
    return [RunCheckpoint(path.stem, path, step, metrics[step]) for path, step in files.items()]


def _from_table(folder: Path, table: Path) -> list[RunCheckpoint]:
    checkpoints: list[RunCheckpoint] = []
    for row in _rows(table, ("path", "step")):
        path = folder / row["path"]
        if not path.exists():
            raise CheckpointError(f"{table} lists {row['path']!r}, but {path} does not exist.")
        metrics = {name: value for name, value in _numbers(row).items() if name != "path"}
        checkpoints.append(RunCheckpoint(path.name, path, int(float(row["step"])), metrics))
    return checkpoints


def _rows(path: Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
                raise CheckpointError(
                    f"{path} has no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}."
                )
            for row in reader:
                _check_number(path, reader.line_num, row["step"])
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(f"{path} cannot be read as CSV: {error}.") from None


def _check_number(path: Path, line: int, step: str | None) -> None:
    try:
        int(float(step or ""))
    except (ValueError, OverflowError):
        raise CheckpointError(f"{path}, line {line}: the step must be a number; got {step!r}.") from None


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in entry.items():
        try:
            number = float(cast("str", value))
        except (TypeError, ValueError):
            continue
        if name not in _OF_THE_LOG:
            numbers[name] = number
    return numbers


def _since_the_last(steps: Sequence[int], log: Sequence[tuple[int, Mapping[str, float]]]) -> Iterator[dict[str, float]]:
    """For each checkpoint, the means of the values logged since the previous one."""
    latest = {(step, name): value for step, metrics in log for name, value in metrics.items()}  # a resumed run repeats
    for before, step in zip((-1, *steps), steps, strict=False):
        window: dict[str, list[float]] = {}
        for (at, name), value in latest.items():
            if before < at <= step:
                window.setdefault(name, []).append(value)
        yield {name: fmean(values) for name, values in window.items()}
