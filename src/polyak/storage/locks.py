"""Exclusive file locks: held by one process at a time, and released by the system when the process ends."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import OutputBusy
from .files import writing

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


class Lock:
    """An exclusive lock, held from construction to `release`.

    It uses `flock` where available: importing the `filelock` package takes longer than a small merge.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the lock file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._lock: Any = None
        if fcntl is None:
            self._acquire_by_library()
        else:
            self._acquire_by_flock()

    def _acquire_by_flock(self) -> None:
        assert fcntl is not None
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise BlockingIOError(error.errno, "locked by another process", str(self._path)) from error
        self._fd = fd

    def _acquire_by_library(self) -> None:
        import filelock

        lock = filelock.FileLock(self._path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise BlockingIOError(0, "locked by another process", str(self._path)) from error
        self._lock = lock

    def is_in_place(self) -> bool:
        """True if the locked file is still the one at the path; the last process to hold it may have removed it."""
        if self._fd < 0:  # locked by the library, on Windows, where an open file cannot be removed
            return True
        return self._path.exists() and os.fstat(self._fd).st_ino == self._path.stat().st_ino

    def release(self) -> None:
        """Release the lock; the file stays."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Release it and remove the file."""
        if self._lock is None:
            self._path.unlink(
                missing_ok=True
            )  # while it is locked: afterwards, another process may have locked the file
            self.release()
        else:
            self.release()  # first: on Windows, an open file cannot be removed
            self._path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str) -> Generator[None]:
    """Lock a file that is being written, by a lock file next to it.

    Args:
        path: The file; its folder is created.
        busy: The message of the error if another process has locked it.

    Raises:
        OutputBusy: another process has locked it.
        OutputError: the lock file cannot be created.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(path.with_name(f".{path.name}.lock"))
        except BlockingIOError as error:
            raise OutputBusy(busy) from error
    try:
        yield
    finally:
        lock.remove()
