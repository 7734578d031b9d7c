"""Checks of the options of an averager."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from ...errors import SettingError
from ._best import Best
from ._declaration import Average, never
from ._selection import Buffers

if TYPE_CHECKING:
    import torch

POLICIES = ("raise", "skip", "unchecked")
DTYPES = ("float64", "float32", "float16", "bfloat16")


def check_averages(averages: Sequence[Average], best: Sequence[Best], every: int, start: int) -> None:
    """Refuse averages that an averager cannot hold together.

    Raises:
        SettingError: there are none, two have one name, or one needs steps that the averager does not count.
    """
    if not averages:
        raise SettingError("an averager needs an average, such as live.ema(0.999).")
    if every < 1 or start < 0:
        raise SettingError(f"`every` of an averager is at least 1 and `start` at least 0; got {every} and {start}.")
    names = [average.name for average in averages] + [each.key for each in best]
    if slashed := next((name for name in names if "/" in name), None):
        raise SettingError(f"an average needs a name without slashes; got {slashed!r}.")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise SettingError(f"{times} averages are called {name!r}. Name them: live.{name}(...).named('slow').")
    for average in averages:
        schedule = average.schedule
        if (schedule.every % every and schedule.every != 1) or schedule.start % every or schedule.phase % every:
            raise SettingError(
                f"the averager counts every {every} steps, and the average {average.name!r} needs others "
                f"(every={schedule.every}, start={schedule.start}). Use multiples of {every}, or every=1 for the "
                "averager."
            )


def check_timing(averages: Sequence[Average], together: int, *, threaded: bool) -> None:
    """Refuse ways to update that do not fit the averages.

    Raises:
        SettingError: naming the option.
    """
    if together < 1:
        raise SettingError(f"`together` of an averager is a number of updates, at least 1; got {together}.")
    for average in averages:
        if threaded and average.schedule.switches is not never:
            raise SettingError(
                f"the average {average.name!r} replaces the weights of the model, which cannot happen on another "
                "thread while the model is in use. Leave out threaded=True."
            )


def check_options(dtype: torch.dtype | None, buffers: str, has_batches: bool, not_finite: str) -> None:
    """Refuse options that are unknown or contradict each other.

    Raises:
        SettingError: naming the option.
    """
    if dtype is not None and str(dtype).removeprefix("torch.") not in DTYPES:
        raise SettingError(f"`dtype` of an averager is one of {', '.join(DTYPES)}; got {dtype}.")
    if buffers not in get_args(Buffers):
        raise SettingError(f"`buffers` of an averager is one of {', '.join(get_args(Buffers))}; got {buffers!r}.")
    if (buffers == "remeasured") != has_batches:
        raise SettingError(
            "buffers='remeasured' needs `batches`, a function that returns batches of training data; other kinds of "
            "buffers take none."
        )
    if not_finite not in POLICIES:
        raise SettingError(f"`not_finite` of an averager is one of {', '.join(POLICIES)}; got {not_finite!r}.")
