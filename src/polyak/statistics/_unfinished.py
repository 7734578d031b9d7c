"""Measurements of finished blocks in a folder, from which an interrupted measurement is resumed."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from ..checkpoint import SafetensorsFile
from ..errors import CannotResume, CheckpointError, OutputExists
from ..storage import check_own, claim, remove_own, writing
from ._measurement import Measurement, write

Blocks: TypeAlias = Mapping[str, Measurement | None]  # of one block, by model; None if it has nothing to measure

_KEY, _MODELS = "polyak.key", "polyak.models"


class Unfinished:
    """Measurements of the first blocks, kept in a folder.

    Args of the constructor:
        folder: The folder; None keeps nothing.
        key: Models, settings and data, which must be equal to resume.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder, self._key = folder, key

    def measured(self, block: int) -> Blocks | None:
        """The measurement of a block by an earlier run; None if there is none.

        Raises:
            CannotResume: it is of another measurement, or damaged.
        """
        if self._folder is None or not (path := self._place(block)).exists():
            return None
        try:
            with SafetensorsFile(path) as file:
                if file.metadata.get(_KEY) != self._key:
                    raise CannotResume(
                        f"the unfinished measurement at {self._folder} is of other models, settings or data. Start "
                        "over with --force."
                    )
                models = json.loads(file.metadata[_MODELS])
                return {name: _measurement(file, i, facts) for i, (name, facts) in enumerate(models.items())}
        except (CheckpointError, AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise CannotResume(
                f"the unfinished measurement at {self._folder} is damaged ({error}). Start over with --force."
            ) from error

    def keep(self, block: int, measured: Blocks) -> None:
        """Save the measurements of a block."""
        if self._folder is None:
            return
        with writing(self._folder):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            claim(self._folder)
        tensors: dict[str, Any] = {}
        facts = {name: None if measurement is None else _facts(measurement) for name, measurement in measured.items()}
        for i, measurement in enumerate(measured.values()):
            tensors |= {f"{i}/{name}": array for name, array in (measurement.tensors if measurement else {}).items()}
        write(self._place(block), tensors, {_KEY: self._key, _MODELS: json.dumps(facts)})

    def _place(self, block: int) -> Path:
        assert self._folder is not None
        return self._folder / f"block-{block}.safetensors"


@contextmanager
def unfinished(folder: Path | None, key: str, *, resume: bool, force: bool) -> Generator[Unfinished]:
    """Resume from a folder, or start over; the folder is removed at the end of the `with`.

    Raises:
        OutputExists: the folder exists, and neither `resume` nor `force` is set, or polyak did not make it.
    """
    if folder is not None and folder.exists():
        if force:
            with writing(folder):
                _remove(folder)
        elif resume:
            check_own(folder)
        else:
            raise OutputExists(
                f"there is an unfinished measurement at {folder}. Continue with --resume, or start over with --force."
            )
    yield Unfinished(folder, key)
    if folder is not None:
        with writing(folder):
            remove_own(folder)


def _remove(folder: Path) -> None:
    """Remove unfinished work, or a file in its place; links and the folders of others stay."""
    if folder.is_file() and not folder.is_symlink():
        folder.unlink()
    else:
        remove_own(folder)


def _facts(measurement: Measurement) -> dict[str, Any]:
    return {
        "kind": measurement.kind,
        "rows": dict(measurement.rows),
        "examples": measurement.examples,
        "model": measurement.model,
        "data": measurement.data,
        "facts": dict(measurement.facts),
        "notes": list(measurement.notes),
    }


def _measurement(file: SafetensorsFile, number: int, facts: Mapping[str, Any] | None) -> Measurement | None:
    if facts is None:
        return None
    tensors = {name: file.read(f"{number}/{name}") for name in facts["rows"]}
    return Measurement(
        facts["kind"], tensors, facts["rows"], facts["examples"], facts["model"], facts["data"], facts["facts"],
        tuple(facts["notes"]),
    )  # fmt: skip
