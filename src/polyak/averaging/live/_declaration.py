"""The declaration of a live average: a function from settings to a schedule, whose signature says everything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ParamSpec

from ...declare import Registry, Setting, bind, settings_of, summary_of
from ...errors import RecipeError, SettingError, suggestion

P = ParamSpec("P")
LIVE = -1  # in a schedule's `value`: the weights of the model that trains, in place of a copy


@dataclass(frozen=True)
class Moment:
    """The counters of an average when it is updated or read.

    Attributes:
        updates: Updates of this average so far, without the one that is computed.
        step: Training steps since the averager's start.
        steps: Training steps since the last update.
        samples: Training examples since the last update.
    """

    updates: int
    step: int
    steps: int = 1
    samples: int = 1


def _first_copy(moment: Moment) -> Mapping[int, float]:
    return {0: 1.0}


def never(step: int) -> bool:
    """False: the average does not replace the weights of the model."""
    return False


def _nothing(moment: Moment, **options: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Schedule:
    """The scalars of an average; the averager does the arithmetic on tensors.

    An average keeps `slots` copies of the weights. An update moves copy c towards the weights theta by its amount,
    copy_c <- copy_c + amount (theta - copy_c): 1 overwrites it. The average is a linear combination of the copies.

    Attributes:
        update: From the counters to the amounts, by copy; copies that are not named stay as they are.
        value: From the counters, and options by keyword, to the coefficients, by copy or `LIVE`.
        slots: Number of copies.
        every: An update happens at every N-th step after `start`.
        start: Step after which updates happen.
        phase: Shift of the updates: they happen at steps start + phase, start + phase + every ...
        initial: Copies that hold the weights at `start`.
        switches: True for a step after which the average replaces the weights of the model.
        facts: From the counters, and the options of `value`, to plain data for the provenance.
    """

    update: Callable[[Moment], Mapping[int, float]]
    value: Callable[..., Mapping[int, float]] = _first_copy
    slots: int = 1
    every: int = 1
    start: int = 0
    phase: int = 0
    initial: tuple[int, ...] = ()
    switches: Callable[[int], bool] = never
    facts: Callable[..., Mapping[str, Any]] = _nothing

    def is_due(self, step: int) -> bool:
        """True if an update happens at this step, counted from 1."""
        return step > self.start and (step - self.start - self.phase) % self.every == 0


@dataclass(frozen=True)
class Average:
    """An average with its settings, for an `Averager`.

    Attributes:
        name: Its name in the averager: that of the schedule, unless `named` gave another.
        kind: Name of the schedule.
        settings: All settings, checked.
        schedule: Its scalars.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    schedule: Schedule

    def named(self, name: str) -> Average:
        """The same average under another name, so that an averager can hold two of one kind.

        Raises:
            SettingError: the name is empty or contains a slash.
        """
        if not name or "/" in name:
            raise SettingError(f"an average needs a name without slashes; got {name!r}.")
        return replace(self, name=name)


@dataclass(frozen=True)
class AverageKind:
    """A declared average.

    Attributes:
        name: Its name.
        fn: From settings to a schedule.
        source: Publication.
        settings: Its settings, by name.
    """

    name: str
    fn: Callable[..., Schedule]
    source: str
    settings: Mapping[str, Setting]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.fn)

    def bind(self, values: Mapping[str, Any]) -> Average:
        """The average with these settings.

        Raises:
            SettingError: one is unknown, of the wrong kind or out of range.
        """
        bound = bind(f"average {self.name!r}", self.settings, values)
        return Average(self.name, self.name, bound, self.fn(**bound))


def _unknown(name: str, known: Iterable[str]) -> RecipeError:
    return RecipeError(f"unknown average {name!r}. {suggestion(name, known)}")


registry: Registry[AverageKind] = Registry(
    "average", package=f"{__package__}", group="polyak.averages", unknown=_unknown
)
resolve, load_all = registry.resolve, registry.load_all


@dataclass(frozen=True)
class average:  # noqa: N801
    """Register the decorated function as the average called `name`.

    The function takes settings and returns a `Schedule`; decorated, it checks the settings and returns an `Average`.

    Args:
        name: Its name.
        source: Publication: authors, year, title, identifier.

    Raises:
        DeclarationError: the name is taken, there is no docstring, or a setting is not annotated.
    """

    name: str
    source: str

    def __call__(self, fn: Callable[P, Schedule]) -> Callable[P, Average]:
        kind = registry.declare(
            self.name,
            fn,
            lambda owner: AverageKind(self.name, fn, self.source, settings_of(owner, fn, positional=True)),
        )
        signature = inspect.signature(fn)

        def declared(*args: P.args, **kwargs: P.kwargs) -> Average:
            by_position = dict(zip(signature.parameters, args, strict=False))
            if len(args) > len(by_position) or by_position.keys() & kwargs.keys():
                raise SettingError(f"average {self.name!r} takes each setting once: {signature}.")
            return kind.bind(by_position | kwargs)

        declared.__name__, declared.__qualname__, declared.__doc__ = fn.__name__, fn.__qualname__, fn.__doc__
        declared.__module__ = fn.__module__
        declared.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]  # which inspect reads
        return declared
