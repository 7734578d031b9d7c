"""The interface of executors: calls in, outcomes out, in any order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..errors import PolyakError
from ..events import Event

Emit = Callable[[Event], None]


class UnitFailed(PolyakError):
    """A unit cannot be completed, and doing it again would not help: it diverged, or its process dies."""


@dataclass(frozen=True)
class Call:
    """A call that any process can make.

    Attributes:
        name: Its name in messages.
        fn: A function of a module; it takes a function that sends events, and the arguments.
        arguments: Its other arguments; they can be pickled.
    """

    name: str
    fn: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call.

    Attributes:
        name: The call's name.
        value: The result of the function; None if it failed.
        error: Why it failed; None if it did not.
        seconds: Wall time.
        detail: The traceback of an unexpected error, for the log.
    """

    name: str
    value: Any = None
    error: PolyakError | None = None
    seconds: float = 0.0
    detail: str = ""


class Executor(ABC):
    """Makes calls, some at the same time.

    Nothing may depend on which process makes a call, on the order of outcomes, or on the number of processes.
    """

    @abstractmethod
    def map(self, calls: Sequence[Call], emit: Emit) -> Iterator[Outcome]:
        """Make calls, and yield their outcomes as they arrive.

        When the iterator is closed, or an exception (such as Ctrl-C) leaves it, the calls under way are ended.

        Args:
            calls: The calls.
            emit: Receives the events that the calls send, in this process.

        Raises:
            SettingError: a call cannot be sent to where it would be made.
        """

    def close(self) -> None:  # noqa: B027  many executors keep nothing
        """Release what is kept between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
