"""The folder of a run: its identity, its journal, and the folders of its units."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CannotResume, OutputExists
from ..reading import write_yaml
from ..storage import (
    Journal,
    as_json,
    followed,
    locked,
    read_journal,
    read_regular,
    sync_folder,
    write_whole,
    writing,
)
from ._desk import METRICS
from ._units import About, Results

RUN, RECIPE, JOURNAL, LOG, UNITS, UNFINISHED = (
    "run.json",
    "recipe.yaml",
    "journal.jsonl",
    "log.jsonl",
    "units",
    "unfinished",
)
_LARGEST = 16 << 20  # bytes of run.json


class RunFolder:
    """The folder of a run, locked while it is open; `opened` opens it.

    Attributes:
        out: The folder.
        results: Results of the units that are done.
        failed: Why units failed.
        notes: Messages for the user about what was found there.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.notes = out, list[str]()
        self.results: dict[str, Mapping[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self._removed = set[str]()
        self._journal: Journal | None = None

    @classmethod
    @contextmanager
    def opened(cls, out: str | Path, about: About, *, resume: bool) -> Generator[RunFolder]:
        """Lock a folder for a run, which begins or continues.

        Raises:
            OutputExists: something is there, and it is not a run to be resumed.
            OutputBusy: another process is running there.
            CannotResume: the run there is another one; the message names the first difference.
            OutputError: the folder cannot be written.
        """
        folder = cls(followed(Path(os.path.abspath(out))))
        _refuse_others(folder.out, resume=resume)
        busy = f"another run is writing into {folder.out} now. Wait for it, or choose another folder."
        with locked(folder.out, busy), ExitStack() as stack:
            _refuse_others(folder.out, resume=resume)
            with writing(folder.out):
                folder._begin(about)
            stack.callback(folder.close)
            yield folder

    def _begin(self, about: About) -> None:
        if (self.out / RUN).exists():
            self._compare(about)
        else:
            for name in (UNITS, UNFINISHED):
                (self.out / name).mkdir(parents=True, exist_ok=True)
            write_whole(self.out / RECIPE, write_yaml({"recipe": about.recipe, **about.settings}))
            write_whole(self.out / RUN, as_json(_as_data(about)))
        entries, nbytes = read_journal(self.out / JOURNAL)
        self._journal = Journal(self.out / JOURNAL)
        os.truncate(self.out / JOURNAL, nbytes)  # the next entry must not be appended to half an entry
        for entry in entries:
            self._read(entry)
        self._forget_lost()
        self._clear()

    def _compare(self, about: About) -> None:
        known: dict[str, Any] = json.loads(read_regular(self.out / RUN, _LARGEST))
        new = json.loads(as_json(_as_data(about)))
        for key in ("recipe", "settings", "inputs"):
            if difference := _difference(known.get(key), new[key], key):
                raise CannotResume(
                    f"the run in {self.out} is another one: {difference}. Resume it as it was, or choose another "
                    "folder."
                )
        if difference := _difference(known.get("versions"), new["versions"], "versions"):
            self.notes.append(f"{difference}; the last bits of results may differ from those of one undisturbed run")

    def _read(self, entry: Mapping[str, Any]) -> None:
        if "failed" in entry:
            self.failed[entry["unit"]] = entry["failed"]
        elif "unit" in entry:
            self.results[entry["unit"]] = entry["result"]
        else:
            self._removed.update(entry["removed"])

    def _forget_lost(self) -> None:
        lost = [name for name in self.results if name not in self._removed and not (self.out / UNITS / name).is_dir()]
        for name in lost:
            del self.results[name]
            self.notes.append(f"the folder of {name} is gone: it is done again")

    def _clear(self) -> None:
        """Remove folders of units that were moved before they were in the journal, or noted as removed before."""
        for path in (self.out / UNITS).iterdir():
            if path.name not in self.results or path.name in self._removed:
                shutil.rmtree(path)

    def unfinished(self, unit: str, *, keep: bool = False) -> Path:
        """The folder in which a unit writes: empty, or with `keep` as an earlier attempt has left it."""
        folder = self.out / UNFINISHED / unit
        with writing(folder):
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, unit: str, result: Mapping[str, Any], seconds: float) -> None:
        """Move the folder of a unit to those of finished ones, and note its result, durably."""
        folder = self.out / UNFINISHED / unit
        with writing(self.out):
            for path in folder.rglob("*"):
                if path.is_file():
                    _sync(path)
            target = self.out / UNITS / unit
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
            sync_folder(target.parent)
            self._note({"unit": unit, "result": dict(result), "seconds": round(seconds, 3)})
        self.results[unit] = result

    def fail(self, unit: str, error: str) -> None:
        """Note that the run continues without a unit."""
        with writing(self.out):
            shutil.rmtree(self.out / UNFINISHED / unit, ignore_errors=True)
            self._note({"unit": unit, "failed": error})
        self.failed[unit] = error

    def remove(self, units: Sequence[str]) -> None:
        """Remove the folders of finished units; their results stay."""
        with writing(self.out):
            if names := [name for name in units if name in self.results and name not in self._removed]:
                self._note({"removed": names})
                self._removed.update(names)
            for name in units:
                shutil.rmtree(self.out / UNITS / name, ignore_errors=True)

    def gather_metrics(self, units: Sequence[str]) -> None:
        """Write the metrics of finished units into one file, in the order of the units."""
        lines: list[str] = []
        for unit in units:
            path = self.out / UNITS / unit / METRICS
            if path.exists():
                entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
                lines += [f"{json.dumps({'unit': unit, **entry})}\n" for entry in entries]
        write_whole(self.out / METRICS, "".join(lines))

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _note(self, entry: Mapping[str, Any]) -> None:
        assert self._journal is not None
        self._journal.note([entry])


def results_in(out: Path) -> Results:
    """Results of the units of a run that are done, without opening it."""
    entries, _ = read_journal(out / JOURNAL)
    return {entry["unit"]: entry["result"] for entry in entries if "result" in entry}


def _refuse_others(out: Path, *, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputExists(f"{out} is a file, not a folder; it is not replaced. Choose another folder.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / RUN).exists():
        raise OutputExists(f"{out} is a folder with other things than a run. Choose another folder.")
    if not resume:
        raise OutputExists(f"{out} holds a run. Continue it with --resume (`resume=True`), or choose another folder.")


def _as_data(about: About) -> dict[str, Any]:
    from .._version import __version__

    data = asdict(about)
    return {"polyak": __version__, **data}


def _difference(known: Any, new: Any, path: str) -> str:
    """The first difference of plain data, in words; empty if there is none."""
    if isinstance(known, dict) and isinstance(new, dict):
        for key in {**known, **new}:
            if difference := _difference(known.get(key), new.get(key), f"{path}.{key}"):
                return difference
        return ""
    return "" if known == new else f"{path} is {known!r} there and {new!r} now"


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
