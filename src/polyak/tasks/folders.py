"""Folders of data files, as downloaded from a hub, and the part that each file belongs to."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ..errors import TaskError

_PLAIN = ("", "data")  # folders that do not name a part
_SHARD = re.compile(r"-\d+-of-\d+$")


def files_of(folder: Path, part: str, kinds: Collection[str]) -> list[Path]:
    """The files of a part, sorted by name.

    A file's part is its name before `-00000-of-00002`, or the name of its folder: `train.csv`,
    `data/train-00000-of-00002.parquet` and `train/0.jsonl` all belong to `train`.

    Args:
        folder: The folder.
        part: The part; may be empty if there is only one.
        kinds: Endings of the files that can be read.

    Raises:
        TaskError: there is no such part, or there are several and none is named.
    """
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and Path(path.name.removesuffix(".gz")).suffix in kinds and not _is_about(path):
            parts.setdefault(_part_of(path.relative_to(folder)), []).append(path)
    if not parts:
        raise TaskError(f"{folder} is a folder without a file of examples that polyak reads: {', '.join(kinds)}.")
    if part not in parts and (part or len(parts) > 1):
        raise TaskError(f"{folder} has the parts {', '.join(parts)}; name one as `part:`.")
    return parts[part] if part else next(iter(parts.values()))


def _is_about(path: Path) -> bool:
    """True for files with metadata instead of examples."""
    return path.name in ("dataset_info.json", "dataset_infos.json", "state.json") or path.name.startswith(".")


def _part_of(path: Path) -> str:
    stem = path.name.split(".", 1)[0]
    parent = path.parent.name
    return _SHARD.sub("", stem) if parent in _PLAIN else parent
