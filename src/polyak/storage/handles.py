"""Files that stay open while they are used, in a number that the system allows: the least recently used are closed."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from .regular import open_regular

_MOST, _FEWEST, _WHERE_UNKNOWN = 2048, 8, 256


class Handle:
    """A regular file that is opened when it is used, and may be closed and opened again in between.

    Args:
        path: The file.
        flags: `os.O_RDONLY` or `os.O_RDWR`.
    """

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.path, self._flags = path, flags
        self.fds: list[int] = []  # none or one: popping it is atomic, so that it is closed once
        self._file: tuple[int, int] | None = None

    @contextmanager
    def used(self) -> Generator[int]:
        """The file descriptor, which stays open within the `with`; from any thread.

        Raises:
            OSError: the file is gone, is no regular file, or another file took its place since it was first opened.
        """
        fd = _pool.acquire(self)
        try:
            yield fd
        finally:
            _pool.release(self)

    def open(self) -> int:
        """Open the file; for the pool, which holds its lock."""
        fd = open_regular(self.path, self._flags)
        status = os.fstat(fd)
        identity = status.st_dev, status.st_ino
        if self._file not in (None, identity):
            os.close(fd)
            raise OSError(errno.ESTALE, "another file took its place", str(self.path))
        self._file = identity
        self.fds.append(fd)
        return fd

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close the file; it can be used again."""
        with suppress(IndexError):
            close(self.fds.pop())

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be empty already
        while self.fds:
            close(self.fds.pop())


class _Pool:
    """The open files of this process, least recently used first."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: OrderedDict[int, list[int]] = OrderedDict()  # by identity: a pool must not keep handles alive
        self._users: dict[int, int] = {}
        self._limit: int | None = None

    def acquire(self, handle: Handle) -> int:
        with self._lock:
            key = id(handle.fds)
            fd = handle.fds[0] if handle.fds else self._opened(handle)
            self._open[key] = handle.fds
            self._open.move_to_end(key)
            self._users[key] = self._users.get(key, 0) + 1
            return fd

    def release(self, handle: Handle) -> None:
        with self._lock:
            key = id(handle.fds)
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]

    def _opened(self, handle: Handle) -> int:
        if self._limit is None:
            self._limit = _most_open()
        self._close_unused(down_to=self._limit - 1)
        try:
            return handle.open()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._close_unused(down_to=0)
            return handle.open()

    def _close_unused(self, down_to: int) -> None:
        if len(self._open) <= down_to:
            return
        for key, fds in list(self._open.items()):
            if key not in self._users:
                del self._open[key]
                with suppress(IndexError):
                    os.close(fds.pop())
            if len(self._open) <= down_to:
                return


def _most_open() -> int:
    """Half of the files that this process may have open."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return _WHERE_UNKNOWN
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(_FEWEST, min(soft // 2, _MOST))


_pool = _Pool()
