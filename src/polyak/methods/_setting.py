"""A setting of a method: its type, its default, and which values it may have."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

from ._signature import In

_LARGEST = (2 - 2.0**-24) * 2.0**127  # from here on numbers round to infinity in float32, in which methods compute


@dataclass(frozen=True)
class Setting:
    """A keyword-only parameter of a method.

    Attributes:
        name: Its name in recipes.
        kind: The type of a value, or the words it may be; text is a regular expression.
        default: Its value when the recipe gives none; `REQUIRED` when the recipe must.
        per_model: True if each model has its own value.
        range: The allowed numbers.
    """

    name: str
    kind: type[float | int | bool | str] | tuple[str, ...]
    default: Any
    per_model: bool = False
    range: In | None = None

    def problem_with(self, value: object) -> str | None:
        """Say what one value must be instead, or return None when it is fine."""
        if isinstance(self.kind, tuple):
            return None if value in self.kind else f"one of {', '.join(self.kind)}"
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(value)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return f"a regular expression ({error})"
    return None
