"""Blocks that were measured before an interruption, in a folder, so that the measurement goes on behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from ..checkpoint import SafetensorsFile
from ..errors import CannotResume, CheckpointError, OutputExists
from ..storage import writing
from ._measurement import Measurement, write

Blocks: TypeAlias = Mapping[str, Measurement | None]  # of one block, by model; None where it has nothing to measure

_KEY, _MODELS = "polyak.key", "polyak.models"


class Unfinished:
    """What is known of the first blocks.

    Args of the constructor:
        folder: Where it is kept; None keeps nothing.
        key: What a resumption must agree with.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder, self._key = folder, key

    def measured(self, block: int) -> Blocks | None:
        """What an earlier run has measured of a block.

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
                said = json.loads(file.metadata[_MODELS])
                return {name: _measurement(file, i, one) for i, (name, one) in enumerate(said.items())}
        except (CheckpointError, KeyError, ValueError, TypeError) as error:
            raise CannotResume(
                f"the unfinished measurement at {self._folder} is damaged ({error}). Start over with --force."
            ) from error

    def keep(self, block: int, measured: Blocks) -> None:
        """Keep what was measured of a block."""
        if self._folder is None:
            return
        tensors: dict[str, Any] = {}
        said = {name: None if one is None else _facts(one) for name, one in measured.items()}
        for i, one in enumerate(measured.values()):
            tensors |= {f"{i}/{name}": array for name, array in (one.tensors if one else {}).items()}
        write(self._place(block), tensors, {_KEY: self._key, _MODELS: json.dumps(said)})

    def _place(self, block: int) -> Path:
        assert self._folder is not None
        return self._folder / f"block-{block}.safetensors"


@contextmanager
def unfinished(folder: Path | None, key: str, *, resume: bool, force: bool) -> Generator[Unfinished]:
    """Go on from what lies in a folder, if that is wanted; the folder goes when all is done.

    Raises:
        OutputExists: something lies there, and neither was asked for.
    """
    if folder is not None and folder.exists():
        if force:
            with writing(folder):
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        elif not resume:
            raise OutputExists(
                f"an unfinished measurement lies at {folder}. Go on with --resume, or start over with --force."
            )
    yield Unfinished(folder, key)
    if folder is not None and folder.exists():
        shutil.rmtree(folder)


def _facts(one: Measurement) -> dict[str, Any]:
    return {
        "kind": one.kind, "rows": dict(one.rows), "examples": one.examples, "model": one.model, "data": one.data,
        "facts": dict(one.facts), "notes": list(one.notes),
    }  # fmt: skip


def _measurement(file: SafetensorsFile, number: int, said: Mapping[str, Any] | None) -> Measurement | None:
    if said is None:
        return None
    tensors = {name: file.read(f"{number}/{name}") for name in said["rows"]}
    return Measurement(
        said["kind"], tensors, said["rows"], said["examples"], said["model"], said["data"], said["facts"],
        tuple(said["notes"]),
    )  # fmt: skip
