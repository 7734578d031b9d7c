"""Progress as typed events, which a terminal, JSON lines, a notebook and a web page render alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

from .errors import SettingError


@dataclass(frozen=True)
class Started:
    """An activity begins.

    Attributes:
        activity: Its name, such as `merging`.
        total: Amount of work, in units; 0 if it is not known.
        unit: Unit of the count, such as `bytes`.
    """

    activity: str
    total: int
    unit: str


@dataclass(frozen=True)
class Advanced:
    """More units are done."""

    count: int


@dataclass(frozen=True)
class Notice:
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class TrialFinished:
    """A search has scored a candidate.

    Attributes:
        number: Its number in the study.
        state: `complete`, `pruned` or `failed`.
        objectives: Its scores; empty if it failed.
        baseline: The name of a reference setting that every search tries first, or empty.
        error: Why it failed, or empty.
    """

    number: int
    state: str
    objectives: tuple[float, ...]
    baseline: str = ""
    error: str = ""


@dataclass(frozen=True)
class UnitStarted:
    """A unit of a run begins, or begins again after its process died.

    Attributes:
        name: Its name, such as `phase-1-copy-2`.
        total: Amount of work, counted in the unit of the run; part of the total of `Started`.
    """

    name: str
    total: int


@dataclass(frozen=True)
class UnitAdvanced:
    """More work is done in a unit of a run; it counts towards the whole, too."""

    name: str
    count: int


@dataclass(frozen=True)
class UnitFinished:
    """A unit of a run has ended.

    Attributes:
        name: Its name.
        state: `done`, or `failed`: the run continues without it.
        seconds: Its wall time.
        metrics: Numbers of its result, by name.
        error: Why it failed, or empty.
    """

    name: str
    state: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    error: str = ""


@dataclass(frozen=True)
class Finished:
    """The activity has ended, completed or not."""

    activity: str


Event: TypeAlias = Started | Advanced | Notice | TrialFinished | UnitStarted | UnitAdvanced | UnitFinished | Finished
Watcher: TypeAlias = Callable[[Event], None]  # called from any thread

_NAMES = {
    Started: "started", Advanced: "advanced", Notice: "notice", TrialFinished: "trial", UnitStarted: "unit_started",
    UnitAdvanced: "unit_advanced", UnitFinished: "unit_finished", Finished: "finished",
}  # fmt: skip


def as_data(event: Event) -> dict[str, Any]:
    """An event as plain data: its fields, and its kind under `event`."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def ignore(event: Event) -> None:
    """The watcher that shows nothing."""


def tee(*watchers: Watcher) -> Watcher:
    """A watcher that passes each event to several."""

    def pass_on(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    return pass_on


class Reporter:
    """Sends what the engine reports (`start`, `advance`, `say`) to a watcher as events.

    As a context manager, it ends the activity, also after an error.

    Args of the constructor:
        watcher: Receives the events.
        activity: Name of the activity, such as `merging`.
        unit: Unit of the count.

    Raises:
        SettingError: the watcher cannot be called.
    """

    def __init__(self, watcher: Watcher, activity: str = "merging", unit: str = "bytes") -> None:
        if not callable(watcher):
            raise SettingError(
                f"progress must be a function that takes an event of polyak.events; got {watcher!r}, which cannot be "
                "called."
            )
        self._watcher, self._activity, self._unit = watcher, activity, unit

    def start(self, total: int) -> None:
        """Begin, with `total` units to do; 0 if that is not known."""
        self._watcher(Started(self._activity, total, self._unit))

    def advance(self, count: int) -> None:
        """Report more units done; from any thread."""
        self._watcher(Advanced(count))

    def trial(
        self, number: int, state: str, objectives: tuple[float, ...], baseline: str = "", error: str = ""
    ) -> None:
        """Report a candidate of a search."""
        self._watcher(TrialFinished(number, state, objectives, baseline, error))

    def say(self, text: str) -> None:
        """Report something that the user should know."""
        self._watcher(Notice(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._watcher(Finished(self._activity))
