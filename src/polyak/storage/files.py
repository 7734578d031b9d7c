"""Durable and atomic writes, and reads and writes at any offset, on every operating system.

Calls that only some systems have (`pread`, `fdatasync`, `posix_fallocate`, an atomic exchange of two folders) are used
where they exist and replaced by portable ones elsewhere; no other module depends on the operating system.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import OutputError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows translates line ends without O_BINARY
_seeking = threading.Lock()  # where there is no pread, the file position is shared by all threads


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn the operating system's errors into `OutputError`.

    Args:
        path: The file or folder that is being written.

    Raises:
        OutputError: the disk is full, permission is denied, or another error of the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
            raise OutputError(
                f"the disk of {path} is full ({free} bytes free). Make room and run again with --resume."
            ) from error
        if isinstance(error, PermissionError):
            raise OutputError(f"no permission to write {error.filename or path}.") from error
        raise OutputError(f"{error.filename or path} cannot be written: {error.strerror}.") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically: it appears complete or not at all, and replaces an existing file.

    Raises:
        OutputError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(16).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_text(draft, text)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a small text file and make it durable; line ends are written as they are."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        sync_file(file)


def sync_file(file: Any) -> None:
    """Flush an open file object and make its contents durable."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable, where folders can be synced (not on Windows)."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_data(fd: int) -> None:
    """Make the contents of an open file durable, without its timestamps where the system can omit them."""
    getattr(os, "fdatasync", os.fsync)(fd)


def open_for_reading(path: Path) -> int:
    """A file descriptor for `read_at`."""
    return os.open(path, os.O_RDONLY | _BINARY)


def open_for_writing(path: Path, nbytes: int) -> int:
    """A file descriptor for `write_at` and `read_at`; the file is created, or kept if it exists, with `nbytes` bytes.

    Its space is reserved now where the file system can, so that a full disk is noticed before the merge.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o644)
    try:
        _reserve(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _reserve(fd: int, nbytes: int) -> None:
    if os.fstat(fd).st_size == nbytes:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, nbytes)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # this file system cannot
                raise
    os.ftruncate(fd, nbytes)


def write_at(fd: int, data: Any, offset: int) -> None:
    """Write all bytes of a buffer at an offset; from any thread."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset) if hasattr(os, "pwrite") else _seek_and_write(fd, view, offset)
        view, offset = view[written:], offset + written


def read_at(fd: int, nbytes: int, offset: int) -> bytes:
    """Read up to `nbytes` bytes at an offset, fewer only at the end of the file; from any thread."""
    return os.pread(fd, nbytes, offset) if hasattr(os, "pread") else _seek_and_read(fd, nbytes, offset)


def read_into(fd: int, buffer: Any, offset: int) -> int:
    """Read into a buffer from an offset with one system call; return the number of bytes, which may be fewer."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [buffer], offset)
    data = read_at(fd, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def _seek_and_write(fd: int, view: memoryview, offset: int) -> int:
    with _seeking, _positioned(fd, offset):
        return os.write(fd, view)


def _seek_and_read(fd: int, nbytes: int, offset: int) -> bytes:
    with _seeking, _positioned(fd, offset):
        return os.read(fd, nbytes)


@contextmanager
def _positioned(fd: int, offset: int) -> Generator[None]:
    before = os.lseek(fd, 0, os.SEEK_CUR)
    os.lseek(fd, offset, os.SEEK_SET)
    try:
        yield
    finally:
        os.lseek(fd, before, os.SEEK_SET)


def exchange(a: Path, b: Path) -> bool:
    """Swap two paths atomically; return False, with nothing changed, where kernel or file system cannot."""
    number = _SYS_RENAMEAT2.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(number, _AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
