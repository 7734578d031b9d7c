"""Regular files only: no pipe that is never written, no device that never ends, nothing larger than its reader expects.

Every function raises `OSError`, whose `strerror` completes the sentence "PATH cannot be read: ...".
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_COPIED_NBYTES = 4 << 30  # of a file that is copied next to weights: tokenizers and images are far smaller
_OPENING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # a pipe without a writer opens at once
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows translates line ends without O_BINARY
_CHUNK = 8 << 20
_SPARSE_NBYTES, _SPARSE_RATIO = 1 << 40, 1000  # 1 TiB with less than a thousandth of it on the disk


def open_regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, and nothing else; links are followed.

    Raises:
        OSError: it is missing, is no regular file, or is almost entirely a hole.
    """
    _check(os.stat(path), path)
    fd = os.open(path, flags | _OPENING | _BINARY)
    try:
        _check(os.fstat(fd), path)  # it may have been exchanged since
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    blocks = getattr(status, "st_blocks", None)
    if blocks is not None and status.st_size > max(_SPARSE_NBYTES, 512 * blocks * _SPARSE_RATIO):
        raise OSError(errno.EINVAL, f"it claims {status.st_size} bytes, of which {512 * blocks} are stored", str(path))


def regular_file(path: str | Path) -> BinaryIO:
    """The same as a binary file object.

    Raises:
        OSError: as for `open_regular`.
    """
    return open(path, "rb", opener=lambda name, _: open_regular(name))


def read_regular(path: str | Path, limit: int) -> bytes:
    """The contents of a regular file.

    Args:
        path: The file.
        limit: Maximum size in bytes.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, of which at most {limit:,} are read", str(path))
        return file.read(limit)


def copy_regular(source: Path, target: Path, limit: int = MAX_COPIED_NBYTES) -> None:
    """Copy the contents of a regular file to a new file; a file or link at `target` is replaced.

    Raises:
        OSError: the source cannot be read or is larger than `limit`, or the target cannot be written.
    """
    with regular_file(source) as read:
        size = os.fstat(read.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, of which at most {limit:,} are copied", str(source))
        target.unlink(missing_ok=True)
        with target.open("xb") as written:
            while data := read.read(_CHUNK):
                written.write(data)
