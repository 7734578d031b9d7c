"""Examples as columns, read from data files."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from zipfile import is_zipfile

import numpy as np

from ..errors import TaskError, suggestion
from ..storage import regular_file
from .folders import files_of

KINDS = (
    "CSV, TSV, JSON, JSON lines (each also .gz), Parquet or .npz files, folders of these, "
    "and folders saved by `datasets`"
)


@dataclass(frozen=True)
class Rows:
    """Examples.

    Attributes:
        columns: A sequence per column, all of equal length.
        label: Name of their file, for messages.
        numbers: The position of each row in its file, from 0.
    """

    columns: Mapping[str, Sequence[Any]]
    label: str
    numbers: Sequence[int] = field(default=())

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, chosen: Sequence[int]) -> Rows:
        """Some of the rows."""
        numbers = self.numbers or range(len(self))
        columns = {name: [column[i] for i in chosen] for name, column in self.columns.items()}
        return Rows(columns, self.label, [numbers[i] for i in chosen])

    def place(self, i: int) -> str:
        """The file and number of row `i`, for messages."""
        return f"{self.label}, example {(self.numbers or range(len(self)))[i] + 1}"

    @cached_property
    def fingerprints(self) -> tuple[bytes, ...]:
        """A digest of each row's contents; equal rows have equal digests, whatever their columns are called."""
        import xxhash

        digests = (xxhash.xxh3_128(_canonical(row)).digest() for row in zip(*self.columns.values(), strict=True))
        return tuple(digests)


def read_rows(path: Path, columns: Mapping[str, str], *, part: str = "") -> Rows:
    """Read some columns of a file.

    Args:
        path: Any of `KINDS`.
        columns: From the names of columns to those in the file.
        part: The part of a folder that has several.

    Raises:
        TaskError: it cannot be read, or lacks a column.
    """
    if not path.exists():
        raise TaskError(f"{path} does not exist.")
    if part and not path.is_dir():
        raise TaskError(f"{path} is one file, which has no part {part!r}; only folders have parts.")
    try:
        table = _read_folder(path, part) if path.is_dir() else _read_file(path)
    except (OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{path} cannot be read: {error}.") from error
    if not table:
        raise TaskError(f"{path} has no examples.")
    read = {name: _column(table, theirs, path) for name, theirs in columns.items()}
    rows = Rows(read, str(path))
    if len({len(column) for column in read.values()}) > 1:
        raise TaskError(f"{path}: the columns {', '.join(columns.values())} have different lengths.")
    if not len(rows):
        raise TaskError(f"{path} has no examples.")
    return rows


def _column(table: Mapping[str, Sequence[Any]], name: str, path: Path) -> Sequence[Any]:
    if name not in table:
        raise TaskError(f"{path} has no column {name!r}. {suggestion(name, table)}")
    return table[name]


def _readers() -> dict[str, Callable[[Path], Mapping[str, Sequence[Any]]]]:
    return {
        ".csv": lambda p: _read_csv(p, ","), ".tsv": lambda p: _read_csv(p, "\t"), ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines, ".json": _read_json, ".parquet": _read_parquet, ".npz": _read_npz,
    }  # fmt: skip


def _read_file(path: Path) -> Mapping[str, Sequence[Any]]:
    reader = _readers().get(Path(path.name.removesuffix(".gz")).suffix)
    if reader is None:
        raise TaskError(f"{path} has a suffix that polyak does not read. Known: {KINDS}.")
    with regular_file(path):  # before other libraries open it: a pipe would wait for ever
        pass
    return reader(path)


@contextmanager
def _text(path: Path) -> Generator[io.TextIOBase]:
    with regular_file(path) as file:  # which gzip does not close
        unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        with io.TextIOWrapper(cast("Any", unpacked), encoding="utf-8-sig", newline="") as text:
            yield text


def _read_csv(path: Path, delimiter: str) -> Mapping[str, Sequence[Any]]:
    with _text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            head = next(reader, [])
            rows = list(reader)
        except csv.Error as error:
            raise TaskError(f"{path}, line {reader.line_num}: {error}.") from None
    for i, row in enumerate(rows):
        if len(row) != len(head):
            raise TaskError(f"{path}, row {i + 2}: {len(row)} fields, but the header has {len(head)}.")
    return {name: [row[i] for row in rows] for i, name in enumerate(head)}


def _read_json_lines(path: Path) -> Mapping[str, Sequence[Any]]:
    with _text(path) as file:
        return _as_columns(_parsed_lines(file, path), path)


def _parsed_lines(file: Iterable[str], path: Path) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise TaskError(f"{path}, line {number}: not JSON ({error}).") from None


def _read_json(path: Path) -> Mapping[str, Sequence[Any]]:
    with _text(path) as file:
        objects = json.loads(file.read())
    if not isinstance(objects, list):
        raise TaskError(f"{path} must hold a list of objects; it holds a {type(objects).__name__}.")
    return _as_columns(cast("list[Any]", objects), path)


def _as_columns(objects: Iterable[Any], path: Path) -> Mapping[str, Sequence[Any]]:
    rows: list[Mapping[str, Any]] = []
    for i, value in enumerate(objects, 1):
        if not isinstance(value, dict):
            raise TaskError(f"{path}, example {i}: expected an object, got {value!r:.60}.")
        rows.append(cast("dict[str, Any]", value))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _Sparse(rows, names, path)


class _Sparse(Mapping[str, Sequence[Any]]):
    """Columns of objects with different keys; a column that is read must be in every object."""

    def __init__(self, rows: list[Mapping[str, Any]], names: list[str], path: Path) -> None:
        self._rows, self._names, self._path = rows, names, path

    def __getitem__(self, name: str) -> Sequence[Any]:
        for i, row in enumerate(self._rows, 1):
            if name not in row:
                raise TaskError(f"{self._path}, example {i} has no {name!r}; others have.")
        return [row[name] for row in self._rows]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read_npz(path: Path) -> Mapping[str, Sequence[Any]]:
    if not is_zipfile(path):  # numpy would read it as a pickle
        raise TaskError(f"{path} cannot be read: it is not a .npz file, or it is damaged.")
    with np.load(path, allow_pickle=False) as file:
        return {name: cast("Sequence[Any]", file[name]) for name in file.files if np.ndim(file[name])}


def _read_parquet(path: Path) -> Mapping[str, Sequence[Any]]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise TaskError(f"{path}: Parquet files need pyarrow: pip install 'polyak[datasets]'") from None
    return cast("Any", parquet).read_table(path).to_pydict()


def _read_folder(path: Path, part: str) -> Mapping[str, Sequence[Any]]:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _Joined({file: _read_file(file) for file in files_of(path, part, _readers())})
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise TaskError(f"{path}: folders saved by `datasets` need it: pip install 'polyak[datasets]'") from None
    dataset: Any = cast("Any", datasets).load_from_disk(str(path))
    if (path / "dataset_dict.json").is_file():
        if part not in dataset:
            raise TaskError(f"{path} has the parts {', '.join(dataset)}; name one as `part:`.")
        dataset = dataset[part]
    elif part:
        raise TaskError(f"{path} has no parts, so there is no part {part!r}.")
    return {name: dataset[name][:] for name in dataset.column_names}


class _Joined(Mapping[str, Sequence[Any]]):
    """Columns of several files, one after the other."""

    def __init__(self, tables: Mapping[Path, Mapping[str, Sequence[Any]]]) -> None:
        self._tables = tables

    def __getitem__(self, name: str) -> Sequence[Any]:
        return [value for path, table in self._tables.items() for value in _column(table, name, path)]

    def __contains__(self, name: object) -> bool:
        return any(name in table for table in self._tables.values())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for table in self._tables.values() for name in table))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _canonical(row: tuple[Any, ...]) -> bytes:
    return b"\0".join(_bytes_of(value) for value in row)


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, str | int | float | bool | list | dict | None):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    array = np.asarray(value)
    return f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
