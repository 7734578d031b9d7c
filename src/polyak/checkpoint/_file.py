"""Files that are read in ranges, from any number of threads.

Ranges are read with `pread`, not mapped: a mapped file that shrinks kills the process, a short read is an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError, InputChanged
from ..storage import Handle, read_into
from ._api import Bytes


class RangeFile:
    """A file that is opened when it is read, and may be closed in between, where many files are open."""

    def __init__(self, path: Path) -> None:
        self._closed = False
        self._path, self._file = path, Handle(path)

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fill `out` with the bytes of the file that begin at `offset`.

        Raises:
            InputChanged: the file is gone, or ends before `out` is full.
            CheckpointError: it was closed, or cannot be read.
        """
        if not out.size:
            return
        if self._closed:
            raise CheckpointError(f"{self._path} is closed. Open it again to read from it.")
        try:
            with self._file.used() as fd:
                _read_exactly(fd, out, offset, self._path)
        except OSError as error:
            raise InputChanged(f"{self._path} can no longer be opened: {error.strerror}.") from error

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._closed = True
        self._file.close()


def _read_exactly(fd: int, out: Bytes, offset: int, path: Path) -> None:
    view = memoryview(cast(Any, out))
    while view:
        try:
            got = read_into(fd, view, offset)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read at byte {offset}: {error.strerror}.") from error
        if got == 0:
            raise InputChanged(
                f"{path} ends at byte {os.fstat(fd).st_size}, but its header states data up to byte "
                f"{offset + len(view)}. It was truncated while being read; restore it and run again."
            )
        view, offset = view[got:], offset + got
