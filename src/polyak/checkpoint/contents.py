"""The files of a model's folder, which strangers write: only what is in the folder, in bounded memory and time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError
from ..storage import MAX_COPIED_NBYTES, is_deeper, read_regular

MAX_JSON_NBYTES = 100_000_000  # the largest tokenizers have 35 MB
MAX_CONTAINERS = 4_000_000  # lists and objects, of which each takes up to 200 bytes; large tokenizers have 700,000
DEEPEST = 100  # nesting depth of lists and objects

Pairs = list[tuple[str, Any]]


def listed(folder: Path) -> list[Path]:
    """The paths in a folder, by name.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error


def read_json(path: Path, pairs: Callable[[Pairs], Any] | None = None) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: The file.
        pairs: Builds an object from its (name, value) pairs (default: the last of equal names counts).

    Raises:
        CheckpointError: it cannot be read, is not a JSON object, is too large or too deep, or holds a lone surrogate.
    """
    data = read_json_value(path, pairs)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return cast("dict[str, Any]", data)


def optional_json(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a folder; empty if there is no such file.

    Raises:
        CheckpointError: it points out of the folder, or as for `read_json`.
    """
    return read_json(inside(folder, name)) if (folder / name).exists() else {}


def read_json_value(path: Path, pairs: Callable[[Pairs], Any] | None = None) -> object:
    """Read JSON of any kind from a file, as `read_json` does.

    Raises:
        CheckpointError: it cannot be read, is not JSON, is too large or too deep, or holds a lone surrogate.
    """
    try:
        return parse_json(read_regular(path, MAX_JSON_NBYTES), pairs)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error!s:.200}.") from error


def parse_json(raw: bytes, pairs: Callable[[Pairs], Any] | None = None) -> Any:
    """Parse JSON in memory of at most about 30 times its bytes.

    Raises:
        ValueError: it is not JSON, or has too many or too deeply nested values, or a lone surrogate.
        RecursionError: it is nested deeper than the interpreter allows.
    """
    refuse_many_containers(raw)
    data = json.loads(raw, object_pairs_hook=pairs)
    if is_deeper(data, DEEPEST):
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if b"\\u" in raw:
        _refuse_surrogates(data)
    return data


def refuse_many_containers(raw: bytes) -> None:
    """Refuse JSON whose lists and objects would fill memory, before it is parsed.

    Raises:
        ValueError: it has too many.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"it has more than {MAX_CONTAINERS:,} lists and objects")


def _refuse_surrogates(data: Any) -> None:
    """Refuse text that is not Unicode, which an escape can encode, since no file can be written with it."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        shown = error.object[max(error.start - 20, 0) : error.start + 20]
        raise ValueError(f"it holds a lone surrogate, which is no character, at {shown!r}") from None


def unique(pairs: Pairs) -> dict[str, Any]:
    """An object of JSON whose names must differ.

    Raises:
        ValueError: two are equal.
    """
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError(f"{first_repeated(name for name, _ in pairs)!r:.80} is named twice")
    return entries


def first_repeated(names: Iterable[str]) -> str:
    """The first of some names, not all different, that came before."""
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))


def inside(folder: Path, name: str, named_by: Path | None = None) -> Path:
    """The path of a file that must be in `folder`, or in a folder below it: an index may not point anywhere else.

    Links inside the folder are followed; the one link out of it that is allowed is that of the Hub cache, from
    `snapshots/` to the `blobs/` next to it.

    Raises:
        CheckpointError: the file is missing, is elsewhere, or is not a regular file.
    """
    path = _within(folder, name, named_by)
    if not path.is_file():  # to open a pipe would wait for ever
        raise CheckpointError(f"{path}{_by(named_by)} is not a regular file.")
    return path


def folder_inside(folder: Path, name: str, named_by: Path | None = None) -> Path:
    """The path of a folder that must be in `folder`, as `inside` does for files.

    Raises:
        CheckpointError: it is missing or elsewhere.
    """
    return _within(folder, name, named_by)


def copyable(folder: Path, name: str) -> Path:
    """The path of a file that is copied from a model's folder to the result.

    Raises:
        CheckpointError: as `inside`, or it is too large to be a file next to weights.
    """
    path = inside(folder, name)
    if (size := path.stat().st_size) > MAX_COPIED_NBYTES:
        raise CheckpointError(
            f"{path} has {size:,} bytes; files next to weights are copied up to {MAX_COPIED_NBYTES:,}. Move it away."
        )
    return path


def _within(folder: Path, name: str, named_by: Path | None) -> Path:
    by, path = _by(named_by), folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{folder}: {name!r}{by} points out of the folder; refused.")
    try:
        real, home = path.resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r:.500}{by} is missing.") from error
    if not real.is_relative_to(home) and not any(real.is_relative_to(blobs) for blobs in _blobs_beside(home)):
        raise CheckpointError(f"{path}{by} is a link out of the folder, to {real}; refused. Copy the file instead.")
    return path


def _by(named_by: Path | None) -> str:
    return f" (named by {named_by.name})" if named_by else ""


def _blobs_beside(home: Path) -> list[Path]:
    return [parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots"]
