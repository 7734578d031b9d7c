"""A progress bar with rate and time left, on terminals, for work that takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

PATIENCE = 2.0  # seconds of work that need no bar


class Bar:
    """What commands show while they work.

    Args of the constructor:
        quiet: Show nothing.
        doing: What is going on, in a word.
        unit: What is counted, if not bytes.
    """

    def __init__(self, *, quiet: bool, doing: str = "merging", unit: str = "") -> None:
        self._quiet, self._doing, self._unit = quiet, doing, unit
        self._terminal = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._total, self._done, self._began = 0, 0, time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def start(self, total: int) -> None:
        """The work begins; it takes about so many bytes or units."""
        self._total, self._began = total, time.monotonic()

    def advance(self, more: int) -> None:
        """So many more are done; from any thread."""
        with self._lock:
            self._done += more
            if self._terminal and self._bar is None and time.monotonic() - self._began > PATIENCE:
                self._show()
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done, total=max(self._total, self._done))

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        amounts = [self._counted()] if self._unit else [DownloadColumn(), TransferSpeedColumn()]
        columns = [BarColumn(), *amounts, TimeRemainingColumn()]
        self._bar = Progress(self._doing, *columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._doing, total=self._total)
        self._bar.start()

    def _counted(self) -> Any:
        from rich.progress import ProgressColumn
        from rich.text import Text

        unit = self._unit

        class Counted(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.completed:,.0f}/{task.total:,.0f} {unit}, {task.speed or 0:,.0f}/s")

        return Counted()

    def say(self, text: str) -> None:
        """Something that the user should know."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
