"""Staging of a result: a locked folder next to OUT, in which it is written before it appears complete or not at all.

.NAME.polyak/            next to OUT
    polyak-staging       marks the folder as one that polyak made and may remove
    lock                 held by the merge that writes here
    journal.jsonl        the work that is durable on disk; every line has a checksum
    model/               renamed to OUT
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import CannotResume, OutputBusy, OutputError, OutputExists
from .files import exchange, sync_folder, writing
from .journal import Journal, read_journal
from .locks import Lock
from .own import check_own, claim, remove_own


class Draft:
    """The staging folder of `out`, locked while this object is open."""

    def __init__(self, out: Path) -> None:
        self.out = out = followed(out)
        self.home = out.parent / f".{out.name}.polyak"
        self.model = self.home / "model"
        self._lock: Lock | None = None
        self._journal: Journal | None = None

    def open(self, key: str, *, resume: bool, force: bool) -> list[dict[str, Any]]:
        """Lock the draft and prepare it.

        Args:
            key: The digest of the plan and its inputs.
            resume: Resume the unfinished merge.
            force: Discard an unfinished merge, and replace `out` when done.

        Returns:
            The entries of the journal if the merge is resumed, else none.

        Raises:
            OutputExists: there is a result or an unfinished merge, and neither `resume` nor `force`.
            OutputBusy: another merge is writing there.
            CannotResume: the unfinished merge is of another plan, or its inputs changed.
            OutputError: the folder cannot be created.
        """
        try:
            with writing(self.out):
                _refuse_files(self.out)
                self.out.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(self.home):
                    check_own(self.home)
                    self._recover()
                self._refuse_to_overwrite(force)
                claim(self.home)
                self._take_lock()
                return self._begin(key, self._continue(key, resume=resume, force=force))
        except BaseException:
            self.close()
            raise

    def _begin(self, key: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.model.mkdir(exist_ok=True)
        self._journal = Journal(self.home / "journal.jsonl")
        if not entries:
            self.note([{"key": key}])
        return entries

    def _refuse_to_overwrite(self, force: bool) -> None:
        if force:
            _refuse_other_folders(self.out)
        elif self.out.exists() and any(self.out.iterdir()):
            raise OutputExists(f"{self.out} is not empty. Choose another folder, or replace its contents with --force.")

    def _take_lock(self) -> None:
        try:
            self._lock = Lock(self.home / "lock")
        except BlockingIOError as error:
            raise OutputBusy(
                f"another merge is writing {self.out} now. Wait for it, or choose another folder."
            ) from error
        if not self._lock.is_in_place():
            raise OutputBusy(f"another merge has just finished writing {self.out}. Run again.")

    def _continue(self, key: str, *, resume: bool, force: bool) -> list[dict[str, Any]]:
        journal = self.home / "journal.jsonl"
        entries, nbytes = read_journal(journal)
        same = bool(entries) and entries[0].get("key") == key
        if resume and same:
            os.truncate(journal, nbytes)  # the next entry must not be appended to half an entry
            return entries[1:] or [{}]
        if resume and entries:
            raise CannotResume(
                f"the unfinished merge into {self.out} is of another recipe, other settings or changed inputs. "
                "Start over with --force."
            )
        if same and len(entries) > 1 and not force:
            raise OutputExists(
                f"there is an unfinished merge of this recipe into {self.out}. Continue with --resume, or start over "
                "with --force."
            )
        shutil.rmtree(self.model, ignore_errors=True)
        journal.unlink(missing_ok=True)
        return []

    def note(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append entries to the journal, durably: the work that they record must be on disk already."""
        assert self._journal is not None
        self._journal.note(entries)

    def publish(self) -> None:
        """Move the result to `out` in one step; an older result is removed afterwards.

        Raises:
            OutputError: the file system refuses it.
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
        """Restore the old result, if a merge was killed between moving it away and moving the new one to `out`."""
        replaced = self.home / "replaced"
        if replaced.exists() and not self.out.exists():
            os.rename(replaced, self.out)

    def discard(self) -> None:
        """Remove the draft."""
        self.close()
        with suppress(OSError, OutputExists):  # another merge may have begun, or someone may be reading there
            remove_own(self.home)

    def close(self) -> None:
        """Unlock the draft and keep it, so that the merge can be resumed."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@contextmanager
def drafted(out: Path, key: str, *, force: bool) -> Generator[Draft]:
    """A draft of `out`: published at the end of the `with`, and removed on failure.

    Raises:
        OutputError: the folder exists, is in use or cannot be written.
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
    """The folder that a link points to, which need not exist; the link itself is kept.

    Raises:
        OutputError: it points to itself.
    """
    try:
        return out.resolve() if out.is_symlink() else out
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{out} is a link to itself. Choose another folder.") from error


def _refuse_files(out: Path) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise OutputExists(f"{path} is a file, not a folder; it is not replaced. Choose another folder.")


def _refuse_other_folders(out: Path) -> None:
    """Refuse to replace folders that hold other things than a model, such as a home folder."""
    if not out.exists():
        return
    models = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", "polyak.json")
    if any(out.iterdir()) and not any(list(out.glob(pattern)) for pattern in models):
        raise OutputExists(f"{out} is a folder without a model; --force does not replace it. Choose another folder.")
