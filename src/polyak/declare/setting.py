"""A setting: a keyword-only parameter of a declared function, with its type, its default and the values it allows."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from ..reading import problem_with_pattern

REQUIRED = inspect.Parameter.empty  # the default of a required setting
_LARGEST = (2 - 2.0**-24) * 2.0**127  # from here on numbers round to infinity in float32, in which methods compute


@dataclass(frozen=True)
class In:
    """A range of numbers, closed unless `above` excludes its lower end."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return (
            f"{'above' if self.above else 'between'} {self.low:g} and {'at most ' if self.above else ''}{self.high:g}"
        )


@dataclass(frozen=True)
class PerModel:
    """One number per model, shaped (k, 1, ..., 1) so that it broadcasts over stacked tensors of k models."""

    default: Any = REQUIRED
    range: In | None = None


Fraction: TypeAlias = Annotated[float, In(0, 1)]
Pattern: TypeAlias = str  # a regular expression for `re.search`, or empty


@dataclass(frozen=True)
class Setting:
    """A keyword-only parameter of a declared function.

    Attributes:
        name: Its name in recipes and on the command line.
        kind: The type of its values, or the words that are allowed; `str` is a regular expression.
        default: Its default; `REQUIRED` if it has none.
        per_model: True if each model may have its own value.
        range: The numbers that are allowed.
    """

    name: str
    kind: type[float | int | bool | str] | tuple[str, ...]
    default: Any
    per_model: bool = False
    range: In | None = None

    def problem_with(self, value: object) -> str | None:
        """Describe what a value must be instead, or return None if it is valid."""
        if isinstance(self.kind, tuple):
            return None if value in self.kind else f"one of {', '.join(map(str, self.kind))}"
        if self.kind is bool:
            return None if isinstance(value, bool) else "true or false"
        if self.kind is str:
            return _problem_with_pattern(value)
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return "an integer" if self.kind is int else "a number"
        if not math.isfinite(value):
            return "finite"
        if self.kind is float and abs(value) >= _LARGEST:
            return "a number that float32 can hold"
        return str(self.range) if self.range is not None and value not in self.range else None


def _problem_with_pattern(value: object) -> str | None:
    if not isinstance(value, str):
        return "text, a regular expression"
    problem = problem_with_pattern(value)
    return f"a regular expression ({problem})" if problem else None
