"""Strict reading of plain data: errors carry the location of a value, unknown keys are refused."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar, cast, overload

from ..errors import RecipeError, suggestion
from .patterns import problem_with_pattern

T = TypeVar("T")
D = TypeVar("D")
Read = Callable[[object, "Place"], T]

REQUIRED: Any = object()
LARGEST_INTEGER = 2**64 - 1


@dataclass(frozen=True)
class Place:
    """Location of a value: a file (or other source of the recipe), and a path inside it."""

    file: str
    path: str = ""
    whole: str = "the recipe"

    def __truediv__(self, key: str) -> Place:
        return Place(self.file, f"{self.path}.{key}" if self.path else key, self.whole)

    def __getitem__(self, index: int) -> Place:
        return Place(self.file, f"{self.path}[{index}]", self.whole)

    def expected(self, description: str, got: object, remedy: str = "") -> RecipeError:
        """Build the error for a value of the wrong kind."""
        return self.error(f"must be {description}; got {_shown(got)}", remedy)

    def error(self, problem: str, remedy: str = "") -> RecipeError:
        return RecipeError(" ".join(filter(None, [f"{self.file}: {self.path or self.whole} {problem}.", remedy])))


class Table:
    """A mapping that is being read; `finish` refuses keys that were not taken."""

    def __init__(self, data: object, place: Place) -> None:
        self.place = place
        self._left = mapping(data, place)
        self.known_keys: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._left

    @overload
    def take(self, key: str, read: Read[T]) -> T: ...

    @overload
    def take(self, key: str, read: Read[T], default: D) -> T | D: ...

    def take(self, key: str, read: Read[T], default: Any = REQUIRED) -> Any:
        """Read the value of `key`.

        Raises:
            RecipeError: it is missing and has no default, or `read` refuses it.
        """
        self.known_keys.append(key)
        if key in self._left:
            return read(self._left.pop(key), self.place / key)
        if default is REQUIRED:
            near = suggestion(key, self._left) if self._left else ""
            raise self.place.error(f"has no {key!r}, which is required", near if near.startswith("Did") else "")
        return default

    def peek(self, key: str) -> object:
        return self._left.get(key)

    def rest(self) -> dict[str, Any]:
        """Take everything that has not been taken, unread."""
        rest, self._left = self._left, {}
        return rest

    def left(self) -> list[str]:
        """List the keys that have not been taken."""
        return list(self._left)

    def finish(self) -> None:
        """Refuse the keys that have not been taken."""
        for key in self._left:
            raise (self.place / key).error("is an unknown key", suggestion(key, self.known_keys))


def mapping(value: object, place: Place) -> dict[str, Any]:
    """Read a mapping whose keys are text, and copy it."""
    if not isinstance(value, Mapping):
        raise place.expected("a mapping", value)
    items = dict(cast("Mapping[Any, Any]", value))
    for key in items:
        if not isinstance(key, str):
            raise place.expected("a mapping whose keys are text", key)
    return items


def each(read: Read[T]) -> Read[tuple[T, ...]]:
    """Make a reader of lists of one or more values."""

    def read_list(value: object, place: Place) -> tuple[T, ...]:
        if not is_list(value) or not value:
            raise place.expected("a list of one or more values", value)
        return tuple(read(item, place[i]) for i, item in enumerate(value))

    return read_list


def is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    """Test for a mapping."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Test for a sequence other than text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def text(value: object, place: Place) -> str:
    """Read a string."""
    if not isinstance(value, str):
        scalar = isinstance(value, int | float) and is_small(value)
        raise place.expected("text", value, f'Put it in quotes: "{value}".' if scalar else "")
    if not value:
        raise place.expected("text that is not empty", value)
    if "\0" in value or not _is_unicode(value):
        raise place.expected("text without NUL and lone surrogates", value)
    return value


def one_of(words: Sequence[str]) -> Read[str]:
    """Make a reader of one of some words."""

    def read_word(value: object, place: Place) -> str:
        if not isinstance(value, str) or value not in words:
            near = suggestion(value, words) if isinstance(value, str) else ""
            raise place.expected(f"one of {', '.join(words)}", value, near if near.startswith("Did") else "")
        return value

    return read_word


def integer(value: object, place: Place) -> int:
    """Read an integer from 0 to 2^64 - 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_INTEGER:
        raise place.expected("an integer, at least 0 and below 2^64", value)
    return value


def positive(value: object, place: Place) -> int:
    """Read an integer, at least 1 and below 2^64."""
    count = integer(value, place)
    if not count:
        raise place.expected("at least 1", value)
    return count


def boolean(value: object, place: Place) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise place.expected("true or false", value)
    return value


def number(value: object, place: Place) -> float:
    """Read a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise place.expected("a number", value)
    if not is_small(value):
        raise place.expected("a finite number", value)
    return float(value)


def is_small(value: float) -> bool:
    """Test that a number is finite, and below 2^64 if it is an integer."""
    return abs(value) <= LARGEST_INTEGER if isinstance(value, int) else math.isfinite(value)


def pattern(value: object, place: Place) -> str:
    """Read a regular expression."""
    written = text(value, place)
    if problem := problem_with_pattern(written):
        raise place.expected("a regular expression", value, f"({problem})")
    return written


def patterns(value: object, place: Place) -> str:
    """Read a regular expression, or a list of them, of which any may match."""
    if not is_list(value):
        return pattern(value, place)
    return pattern("|".join(each(pattern)(value, place)), place)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
