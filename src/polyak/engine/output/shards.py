"""The tensor files of a result: laid out before the first byte is merged, written from any worker."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...checkpoint import component_of, layout
from ...planning import Sidecars, Step
from ...storage import Draft, Handle, open_for_writing, read_at, sync_data, write_at, writing
from .. import tuning

_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}\.safetensors")


def shards_of(steps: Iterable[Step], shard_nbytes: int, sidecars: Sidecars) -> dict[str, list[Step]]:
    """Assign steps to files: a model in shards of at most `shard_nbytes`, heads in files of their own."""
    stems = sidecars.stems or {"": sidecars.stem}
    models: dict[str, list[Step]] = {stems[""]: []} if "" in stems else {}
    own: dict[str, list[Step]] = {}
    for step in steps:
        if step.file is not None:
            own.setdefault(step.file, []).append(step)
            continue
        component = component_of(step.out.name, stems)
        stem = f"{component}/{stems[component]}" if component else stems[""]
        models.setdefault(stem, []).append(step)
    return {name: part for stem, one in models.items() for name, part in _shards(one, shard_nbytes, stem).items()} | own


def _shards(steps: Iterable[Step], shard_nbytes: int, stem: str) -> dict[str, list[Step]]:
    parts: list[list[Step]] = []
    room = 0
    for step in steps:
        if not parts or step.out.nbytes > room:
            parts.append([])
            room = max(shard_nbytes, step.out.nbytes)
        parts[-1].append(step)
        room -= step.out.nbytes
    names = [f"{stem}-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    return dict(zip([f"{stem}.safetensors"] if len(parts) == 1 else names, parts, strict=True))


def indices_of(files: Mapping[str, list[Step]]) -> dict[str, dict[str, Any]]:
    """The indices of models in several shards, by the names of their files."""
    sharded: dict[str, list[str]] = {}
    for name in files:
        if match := _SHARD.fullmatch(name):
            sharded.setdefault(f"{match[1]}.safetensors.index.json", []).append(name)
    return {index: _index({name: files[name] for name in names}) for index, names in sharded.items()}


def _index(parts: Mapping[str, list[Step]]) -> dict[str, Any]:
    weight_map = {stored_name(step, name): Path(name).name for name, steps in parts.items() for step in steps}
    total = sum(step.out.nbytes for steps in parts.values() for step in steps)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def stored_name(step: Step, file: str) -> str:
    """The name of a tensor within its file, without the folder of a pipeline's component."""
    folder = file.rpartition("/")[0]
    return step.out.name.removeprefix(f"{folder}/") if folder and step.file is None else step.out.name


@dataclass
class _Place:
    file: Handle
    offset: int


class ShardWriter:
    """The open files of a draft.

    Args:
        draft: The staging folder.
        files: The steps that each holds.
        metadata: From a file's name to the free-form strings of its header.
    """

    def __init__(
        self, draft: Draft, files: Mapping[str, list[Step]], metadata: Callable[[str], Mapping[str, str]]
    ) -> None:
        self._draft = draft
        self._places: dict[tuple[str | None, str], _Place] = {}
        self._files: list[Handle] = []
        with writing(draft.out):
            for name, steps in files.items():
                self._create(draft.model / name, steps, metadata(name), [stored_name(step, name) for step in steps])
        self._lock = threading.Condition()
        self._pending: list[Mapping[str, Any]] = []
        self._nbytes, self._closing, self._failure = 0, False, None
        self._thread = threading.Thread(target=self._sync_often, name="polyak-sync", daemon=True)
        self._thread.start()

    def _create(self, path: Path, steps: list[Step], metadata: Mapping[str, str], stored: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        specs = [replace(step.out, name=name) for step, name in zip(steps, stored, strict=True)]
        head, offsets = layout(specs, metadata)
        end = max([len(head), *(offsets[s.name] + s.nbytes for s in specs)])
        os.close(open_for_writing(path, end))
        file = Handle(path, os.O_RDWR)
        self._files.append(file)
        self._write(file, 0, head)
        for step, name in zip(steps, stored, strict=True):
            self._places[step.file, step.out.name] = _Place(file, offsets[name])

    def write(self, step: Step, start: int, data: Any) -> None:
        """Write bytes of a tensor, beginning with its entry `start`; from any thread."""
        extent = self._places[step.file, step.out.name]
        self._write(extent.file, extent.offset + start * step.out.dtype.itemsize, data)

    def write_whole(self, steps: Iterable[Step], data: Any) -> None:
        """Write the bytes of whole tensors, one after the other: those that are neighbours in the file at once."""
        begin = end = at = 0
        file: Handle | None = None
        for step in steps:
            extent = self._places[step.file, step.out.name]
            if extent.file is not file or extent.offset != at + end - begin:
                self._write(file, at, data[begin:end])
                begin, file, at = end, extent.file, extent.offset
            end += step.out.nbytes
        self._write(file, at, data[begin:end])

    def _write(self, file: Handle | None, offset: int, data: Any) -> None:
        if file is not None and len(data):
            with writing(self._draft.out), file.used() as fd:
                write_at(fd, data, offset)

    def read(self, step: Step, start: int, nbytes: int) -> bytes:
        """Read back what was written."""
        extent = self._places[step.file, step.out.name]
        with extent.file.used() as fd:
            return read_at(fd, nbytes, extent.offset + start * step.out.dtype.itemsize)

    def note(self, entry: Mapping[str, Any], nbytes: int) -> None:
        """Have an entry journalled once the data written so far is on disk."""
        with self._lock:
            self._pending.append(entry)
            self._nbytes += nbytes
            if self._nbytes >= tuning.SYNC_NBYTES:
                self._lock.notify()
            if self._failure is not None:
                raise self._failure

    def _sync_often(self) -> None:
        try:
            while True:
                with self._lock:
                    self._lock.wait_for(lambda: self._closing or self._nbytes >= tuning.SYNC_NBYTES, timeout=2.0)
                    entries, self._pending, self._nbytes = self._pending, [], 0
                    closing = self._closing
                self._sync(entries)
                if closing:
                    return
        except BaseException as error:
            self._failure = error

    def _sync(self, entries: list[Mapping[str, Any]]) -> None:
        if entries:
            with writing(self._draft.out):
                for file in self._files:
                    with file.used() as fd:
                        sync_data(fd)
                self._draft.note(entries)

    def close(self) -> None:
        """Sync, journal what is pending, and close.

        Raises:
            OutputError: the disk refused.
        """
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join()
        for file in self._files:
            file.close()
        self._files = []
        if self._failure is not None:
            raise self._failure
