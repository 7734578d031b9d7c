"""A result in the making: a locked folder beside the place where it will appear, whole or not at all.

.NAME.polyak/            beside OUT
    lock                 held by the merge that writes here
    journal.jsonl        what is done and safe on disk; every line has a checksum
    model/               becomes OUT
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from ..errors import CannotResume, OutputBusy, OutputError, OutputExists
from .files import exchange, sync_data, sync_folder, writing
from .locks import Lock

_LINE = b'["%08x",%s]\n'  # CRC-32 and entry


class Draft:
    """The folder beside `out`, locked while this object is open."""

    def __init__(self, out: Path) -> None:
        self.out = out = followed(out)
        self.home = out.parent / f".{out.name}.polyak"
        self.model = self.home / "model"
        self._lock: Lock | None = None
        self._journal: Any = None

    def open(self, key: str, *, resume: bool, force: bool) -> list[dict[str, Any]]:
        """Lock the draft and make it ready.

        Args:
            key: The digest of plan and inputs that the work belongs to.
            resume: Go on with what is there.
            force: Throw away what is there, and replace `out` when done.

        Returns:
            The journal's entries, when resuming.

        Raises:
            OutputExists: there is a result or an unfinished one, and neither was allowed for.
            OutputBusy: another merge is writing there.
            CannotResume: what is there belongs to another plan or to changed inputs.
            OutputError: the folder cannot be made.
        """
        try:
            with writing(self.out):
                _refuse_files(self.out)
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self._recover()
                self._refuse_to_overwrite(force)
                self.home.mkdir(exist_ok=True)
                self._take_lock()
                return self._begin(key, self._continue(key, resume=resume, force=force))
        except BaseException:
            self.close()
            raise

    def _begin(self, key: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.model.mkdir(exist_ok=True)
        self._journal = (self.home / "journal.jsonl").open("ab")
        if not entries:
            self.note([{"key": key}])
        return entries

    def _refuse_to_overwrite(self, force: bool) -> None:
        if force:
            _refuse_what_is_no_model(self.out)
        elif self.out.exists() and any(self.out.iterdir()):
            raise OutputExists(f"{self.out} is not empty. Choose another place, or replace what is there with --force.")

    def _take_lock(self) -> None:
        try:
            self._lock = Lock(self.home / "lock")
        except BlockingIOError as error:
            raise OutputBusy(
                f"another merge is writing {self.out} now. Wait for it, or choose another place."
            ) from error
        if not self._lock.is_in_place():
            raise OutputBusy(f"another merge has just finished writing {self.out}. Run again.")

    def _continue(self, key: str, *, resume: bool, force: bool) -> list[dict[str, Any]]:
        journal = self.home / "journal.jsonl"
        entries, nbytes = _read_journal(journal)
        same = bool(entries) and entries[0].get("key") == key
        if resume and same:
            os.truncate(journal, nbytes)  # what is noted next must not be glued to half an entry
            return entries[1:] or [{}]
        if resume and entries:
            raise CannotResume(
                f"the unfinished work beside {self.out} belongs to another recipe, other settings or changed inputs. "
                "Start over with --force."
            )
        if same and len(entries) > 1 and not force:
            raise OutputExists(
                f"an unfinished merge of this recipe lies beside {self.out}. Go on with --resume, or start over "
                "with --force."
            )
        shutil.rmtree(self.model, ignore_errors=True)
        journal.unlink(missing_ok=True)
        return []

    def note(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append entries to the journal, safely: what they speak of must be on disk already."""
        lines = (json.dumps(entry, separators=(",", ":")).encode() for entry in entries)
        self._journal.write(b"".join(_LINE % (crc32(line), line) for line in lines))
        self._journal.flush()
        sync_data(self._journal.fileno())

    def publish(self) -> None:
        """Put the result in its place, in one step; what was there is removed afterwards.

        Raises:
            OutputError: the file system refuses.
        """
        with writing(self.out):
            sync_folder(self.model)
            if self.out.exists() and not any(self.out.iterdir()):
                self.out.rmdir()
            if not self.out.exists():
                os.rename(self.model, self.out)
            elif not exchange(self.model, self.out):
                os.rename(self.out, self.home / "replaced")
                os.rename(self.model, self.out)
            sync_folder(self.out.parent)
        self.discard()

    def _recover(self) -> None:
        """A merge that died between two renames has taken the old result away: bring it back."""
        replaced = self.home / "replaced"
        if replaced.exists() and not self.out.exists():
            os.rename(replaced, self.out)

    def discard(self) -> None:
        """Remove the draft."""
        self.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def close(self) -> None:
        """Let go of the draft and leave it for a resumption."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@contextmanager
def drafted(out: Path, key: str, *, force: bool) -> Generator[Draft]:
    """A draft of `out`: published if all goes well, else removed without a trace.

    Raises:
        OutputError: the place is taken, busy or not writable.
    """
    draft = Draft(out)
    draft.open(key, resume=False, force=force)
    try:
        yield draft
        draft.publish()
    except BaseException:
        draft.discard()
        raise


def followed(out: Path) -> Path:
    """A link stays where it is: the result goes to the folder it points to, which need not exist yet.

    Raises:
        OutputError: it points to itself.
    """
    try:
        return out.resolve() if out.is_symlink() else out
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{out} is a link to itself. Choose another place.") from error


def _refuse_files(out: Path) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise OutputExists(f"{path} is a file, not a folder; it is not replaced. Choose another place.")


def _refuse_what_is_no_model(out: Path) -> None:
    """--force replaces models, not home folders."""
    if not out.exists():
        return
    models = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", "polyak.json")
    if any(out.iterdir()) and not any(list(out.glob(pattern)) for pattern in models):
        raise OutputExists(f"{out} is a folder that holds no model; --force does not replace it. Choose another place.")


def _read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The entries of a journal up to the first that is not whole, and where that begins.

    A kill tears the last, a bad disk changes any.
    """
    entries: list[dict[str, Any]] = []
    nbytes = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        entry = line[12:-2]
        if line != _LINE % (crc32(entry), entry):
            break
        entries.append(json.loads(entry))
        nbytes += len(line)
    return entries, nbytes
