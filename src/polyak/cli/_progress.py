"""A progress bar with rate and time left, on terminals, for work that takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

PATIENCE = 2.0  # seconds of work that need no bar


class Bar:
    """What `polyak merge` shows while it works."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._total, self._done, self._began = 0, 0, time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def start(self, nbytes: int) -> None:
        """The work begins; it reads about so many bytes."""
        self._total, self._began = nbytes, time.monotonic()

    def advance(self, nbytes: int) -> None:
        """So many more bytes have been read; from any thread."""
        with self._lock:
            self._done += nbytes
            if self._terminal and self._bar is None and time.monotonic() - self._began > PATIENCE:
                self._show()
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done, total=max(self._total, self._done))

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
        self._bar = Progress("merging", *columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("merging", total=self._total)
        self._bar.start()

    def say(self, text: str) -> None:
        """Something that the user should know."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
