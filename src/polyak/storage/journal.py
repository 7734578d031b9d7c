"""A journal of finished work: one JSON object per line with a checksum, so that half a line is recognised."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from .files import sync_data
from .regular import read_regular

_LARGEST = 1 << 30  # bytes of a journal
_LINE = b'["%08x",%s]\n'  # CRC-32 and entry


class Journal:
    """A journal that is open for appending.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(path, flags, 0o644)

    def note(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append entries, durably: the work that they record must be on disk already."""
        lines = (json.dumps(entry, separators=(",", ":")).encode() for entry in entries)
        view = memoryview(b"".join(_LINE % (crc32(line), line) for line in lines))
        while view:  # a full disk takes a part and refuses the rest: half an entry is ignored when the journal is read
            view = view[os.write(self._fd, view) :]
        sync_data(self._fd)

    def close(self) -> None:
        """Close the file; the second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The valid entries of a journal up to the first invalid one, and their number of bytes.

    A killed process may leave half an entry; a bad disk may change any.
    """
    entries: list[dict[str, Any]] = []
    nbytes = 0
    for line in read_regular(path, _LARGEST).splitlines(keepends=True) if path.exists() else []:
        entry = line[12:-2]
        if line != _LINE % (crc32(entry), entry):
            break
        try:
            value = json.loads(entry)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict):
            break
        entries.append(cast("dict[str, Any]", value))
        nbytes += len(line)
    return entries, nbytes
