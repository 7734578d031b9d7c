"""Files that are read in ranges, from any number of threads.

Ranges are read with `pread`, not mapped: a mapped file that shrinks kills the process, a short read is an error.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError, InputChanged
from ..storage import open_for_reading, read_into
from ._api import Bytes


class RangeFile:
    """A file that is opened at the first read, and closed by `close`."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self._closed = False
        self._path = path
        self._lock = threading.Lock()

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fill `out` with the bytes of the file that begin at `offset`.

        Raises:
            InputChanged: the file is gone, or ends before `out` is full.
            CheckpointError: it was closed, or cannot be read.
        """
        if out.size:
            _read_exactly(self._descriptor(), out, offset, self._path)

    def _descriptor(self) -> int:
        if self._fd < 0:
            with self._lock:
                if self._closed:
                    raise CheckpointError(f"{self._path} is closed. Open it again to read from it.")
                if self._fd < 0:
                    try:
                        self._fd = open_for_reading(self._path)
                    except OSError as error:
                        raise InputChanged(f"{self._path} can no longer be opened: {error.strerror}.") from error
        return self._fd

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        with self._lock:
            self._closed = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be empty already
        if self._fd >= 0:
            close(self._fd)


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
