"""Watchers that show progress: a bar on terminals and in notebooks, else a line now and then, or JSON lines."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from typing import Any, TextIO

from ..events import (
    Advanced,
    Event,
    Finished,
    Notice,
    Started,
    TrialFinished,
    UnitAdvanced,
    UnitFinished,
    UnitStarted,
    Watcher,
    as_data,
    ignore,
)
from .text import human_size, printable

PATIENCE = 2.0  # seconds of work that need no bar
EVERY = 30.0  # seconds between two lines where nobody watches a bar; the first line comes after a third of it
JSON_EVERY = 1.0  # seconds between two `advanced` events of JSON lines


def watcher_for(stream: TextIO | None = None, *, quiet: bool = False, as_json: bool = False) -> Watcher:
    """The watcher that suits where progress is shown.

    Args:
        stream: Output stream (default: standard error).
        quiet: Show nothing.
        as_json: Write JSON lines instead of text.
    """
    output: TextIO | None = stream or sys.stderr
    if quiet or output is None:  # standard error may be closed
        return ignore
    if as_json:
        return JsonLines(output)
    if _in_notebook():
        return NotebookBar(output)
    return TerminalBar(output) if output.isatty() else Lines(output, EVERY)


def _in_notebook() -> bool:
    """True in a Jupyter kernel; IPython need not be installed."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class _Counted:
    """Base of the watchers that people read: counts what is done, and puts it into words."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._started = Started("", 0, "")
        self._done, self._began = 0, time.monotonic()
        self._units: dict[str, tuple[int, int]] = {}  # of those that run: work done, and in all

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case Started():
                    self._started, self._done, self._began = event, 0, time.monotonic()
                    self.on_start()
                case Advanced(count):
                    self._done += count
                    self.on_advance()
                case Notice(text):
                    self.print(text)
                case TrialFinished():
                    self.print(_of_trial(event))
                case UnitStarted() | UnitAdvanced() | UnitFinished():
                    self._on_unit(event)
                case Finished():
                    self.on_finish()

    def _on_unit(self, event: UnitStarted | UnitAdvanced | UnitFinished) -> None:
        done, total = self._units.pop(event.name, (0, 0))
        if isinstance(event, UnitFinished):
            self.print(_of_unit(event))
            self._done += total - done  # of a unit that failed, or had nothing to count
        elif isinstance(event, UnitStarted):
            self._units[event.name] = (0, event.total)
            self._done -= done
        else:
            self._units[event.name] = (done + event.count, total)
            self._done += event.count
        self.on_advance()

    def on_start(self) -> None: ...
    def on_advance(self) -> None: ...
    def on_finish(self) -> None: ...

    def print(self, text: str) -> None:
        with suppress(OSError):  # of a stream that is full or gone: the work goes on
            print(printable(text), file=self._stream, flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def share(self) -> float | None:
        """Completed fraction; None if the total is not known."""
        return min(1.0, self._done / self._started.total) if self._started.total else None

    def described(self) -> str:
        """Activity, amount, rate and time left, such as `merging: 25 % of 4 GB, 1 GB/s, 3 s left`."""
        unit, total, rate = self._started.unit, self._started.total, self._done / max(self.seconds, 1e-9)
        if self.share is None:
            return f"{self._started.activity}: {_amount(self._done, unit)}, {_time(self.seconds)}"
        left = f", {_time((total - self._done) / rate)} left" if 0 < self._done < total else ""
        amount = (
            f"{self._done:,} of {total:,} {unit}" if unit != "bytes" else f"{self.share:.0%} of {human_size(total)}"
        )
        pace = f"{human_size(rate)}/s" if unit == "bytes" else f"{rate:.3g}/s"
        units = ", ".join(f"{name} {done}/{total}" for name, (done, total) in self._units.items() if total)
        return f"{self._started.activity}: {amount}, {pace}{left}{f' ({units})' if units else ''}"


def _amount(count: int, unit: str) -> str:
    return human_size(count) if unit == "bytes" else f"{count:,} {unit}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _of_trial(trial: TrialFinished) -> str:
    scores = ", ".join(f"{value:.4f}" for value in trial.objectives) or trial.error
    return f"{trial.number:>5}{f' ({trial.baseline})' if trial.baseline else ''} {trial.state} {scores}"


def _of_unit(unit: UnitFinished) -> str:
    words = unit.error or ", ".join(f"{name} {value:.4g}" for name, value in unit.metrics.items())
    return f"{unit.name}: {unit.state} in {_time(unit.seconds)}{f', {words}' if words else ''}"


class TerminalBar(_Counted):
    """A bar with rate and time left, for work that takes longer than two seconds."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._bar: Any = None
        self._task: Any = None

    def on_advance(self) -> None:
        if self._bar is None and self.seconds > PATIENCE:
            self._show()
        if self._bar is not None:
            total = max(self._started.total, self._done) or None
            self._bar.update(self._task, completed=self._done, total=total, description=self.described())

    def on_finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            super().print(text)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = [BarColumn(), TextColumn("{task.description}", markup=False)]
        self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
        self._task = self._bar.add_task(self.described(), total=self._started.total or None)
        self._bar.start()


class Lines(_Counted):
    """A line now and then, also while nothing advances, so that the log of a job shows that it is alive."""

    def __init__(self, stream: TextIO, every: float = EVERY) -> None:
        super().__init__(stream)
        self._every = every
        self._ended: threading.Event | None = None

    def on_start(self) -> None:
        self.on_finish()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(self._ended,), name="polyak-progress", daemon=True).start()

    def _beat(self, ended: threading.Event) -> None:
        wait = self._every / 3
        while not ended.wait(wait):
            with self._lock:
                self.print(self.described())
            wait = self._every

    def on_finish(self) -> None:
        if self._ended is not None:
            self._ended.set()
            self._ended = None


class JsonLines:
    """One JSON object per line for each event; what advances is summed up over a second.

    Args of the constructor:
        stream: Output stream.
        every: Seconds over which what advances is summed up.
        dated: Add the time of each event, in seconds since 1970.
    """

    def __init__(self, stream: TextIO, every: float = JSON_EVERY, *, dated: bool = False) -> None:
        self._stream, self._every, self._dated = stream, every, dated
        self._lock = threading.Lock()
        self._pending: dict[str, int] = {}  # by unit; under the empty name, what no unit of a run advances
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Advanced | UnitAdvanced):
                name = event.name if isinstance(event, UnitAdvanced) else ""
                self._pending[name] = self._pending.get(name, 0) + event.count
                if time.monotonic() - self._last < self._every:
                    return
            for name, count in self._pending.items():
                self._write(UnitAdvanced(name, count) if name else Advanced(count))
            if self._pending:
                self._pending, self._last = {}, time.monotonic()
            if not isinstance(event, Advanced | UnitAdvanced):
                self._write(event)

    def _write(self, event: Event) -> None:
        data = {**({"time": round(time.time(), 3)} if self._dated else {}), **as_data(event)}
        with suppress(OSError, ValueError):  # of a stream that is full, gone or closed: the work goes on
            print(json.dumps(data), file=self._stream, flush=True)


class NotebookBar(_Counted):
    """A bar of plain HTML under the cell: it needs no widgets, and is kept when the notebook is saved."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._handle: Any = None
        self._drawn = 0.0

    def on_advance(self) -> None:
        if time.monotonic() - self._drawn > 0.2 and self.seconds > PATIENCE / 4:
            self._draw()

    def on_finish(self) -> None:
        if self._handle is not None:
            self._draw()
            self._handle = None

    def _draw(self) -> None:
        from html import escape
        from importlib import import_module

        ipython: Any = import_module("IPython.display")
        value = "" if self.share is None else f" value='{self.share:.4f}'"
        page = ipython.HTML(f"<progress max=1{value} style='width: 20em'></progress> {escape(self.described())}")
        if self._handle is None:
            self._handle = ipython.display(page, display_id=True)
        else:
            self._handle.update(page)
        self._drawn = time.monotonic()
