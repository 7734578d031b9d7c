"""Folders that polyak makes and removes: nothing is removed, or trusted, that it did not make.

Anybody can guess the names of staging folders, and others may write next to them: a planted folder or link of that name
must not be removed, and what it points to even less.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from ..errors import OutputExists

MARKER = "polyak-staging"
_ABOUT = "A staging folder of polyak, which removes it. Do not keep anything here.\n"


def claim(folder: Path) -> None:
    """Create a folder that may be removed, or check that it is one.

    Raises:
        OutputExists: something else has this name.
        OSError: it cannot be created.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        check_own(folder)
    if not (folder / MARKER).exists():
        (folder / MARKER).write_text(_ABOUT, encoding="utf-8")


def check_own(folder: Path) -> None:
    """Refuse a folder that polyak did not make for this user.

    Raises:
        OutputExists: it is a link, a file, another user's, or lacks the marker, or an entry of it is a link.
    """
    if problem := _problem(folder):
        raise OutputExists(
            f"{folder} {problem}, so it is not used as a staging folder, nor removed. Move it away, or choose another "
            "output folder."
        )


def _problem(folder: Path) -> str:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is a link" if stat.S_ISLNK(status.st_mode) else "is not a folder"
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return "belongs to another user"
    entries = list(os.scandir(folder))
    if linked := next((entry.name for entry in entries if entry.is_symlink()), None):
        return f"holds the link {linked!r}, which polyak does not make"
    if entries and not any(entry.name == MARKER and entry.is_file(follow_symlinks=False) for entry in entries):
        return f"lacks the file {MARKER!r} (delete the folder if an earlier version of polyak left it there)"
    return ""


def remove_own(folder: Path) -> None:
    """Remove a folder that polyak made, if it exists.

    Raises:
        OutputExists: polyak did not make it.
    """
    if not os.path.lexists(folder):
        return
    check_own(folder)
    for entry in list(os.scandir(folder)):
        if entry.name != MARKER:  # which goes last: a removal that is interrupted can be finished
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else Path(entry.path).unlink()
    shutil.rmtree(folder)
