"""Strict reading of YAML: plain data, unique keys, one document.

Values are read by the core schema of YAML 1.2, not 1.1: `on`, `no` and `2024-01-31` are text, `1e-5` is a number. A
file yields mappings, lists, text, numbers, booleans and null, and nothing else.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml

from ..errors import RecipeError
from ..storage import is_deeper, regular_file
from .scalars import read_integer, resolve_scalar

LARGEST_FILE = 10_000_000  # bytes
DEEPEST = 100  # nesting depth of mappings and lists
MOST_DOCUMENTS = 100  # in one file
MOST_REPEATED = 100_000  # values that aliases may add: a few lines of aliases can expand to billions

Data: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only its parser is used
_OF_SHELLS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_TAG = "tag:yaml.org,2002:"
_KINDS: dict[str, Any] = {
    f"{_TAG}int": int,
    f"{_TAG}float": (int, float),
    f"{_TAG}bool": bool,
    f"{_TAG}null": type(None),
}
_TOO_DEEP = f"nested more than {DEEPEST} levels deep"


def read_file(path: Path, *, piped: bool = False) -> Data:
    """Read a YAML or (by its suffix) JSON file.

    Args:
        path: The file.
        piped: It may be a pipe, such as one that a shell makes for `<(command)`: for files that the user names, but
            not for those that files name.

    Raises:
        RecipeError: it is missing, no regular file, too large, not UTF-8, or not exactly one document.
    """
    text = _file_text(path, piped=piped)
    return parse_json(text, str(path)) if path.suffix == ".json" else parse_yaml(text, str(path))


def read_documents(path: Path, *, piped: bool = False) -> list[Data]:
    """Read all documents of a YAML file, or the one of a JSON file; `piped` as for `read_file`.

    Raises:
        RecipeError: it is missing, no regular file, too large, not UTF-8, or not YAML.
    """
    text = _file_text(path, piped=piped)
    return [parse_json(text, str(path))] if path.suffix == ".json" else parse_documents(text, str(path))


def _file_text(path: Path, *, piped: bool) -> str:
    try:
        with path.open("rb") if piped and str(path).startswith(_OF_SHELLS) else regular_file(path) as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(raw) > LARGEST_FILE:
        raise RecipeError(f"{path} is larger than {LARGEST_FILE:,} bytes, the maximum size of a recipe.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(raw[: error.start].decode("utf-8", "replace"))
        raise RecipeError(f"{path}, line {line}, column {column}: not UTF-8. Save the file as UTF-8.") from None


def parse_yaml(text: str, where: str = "the text") -> Data:
    """Read one YAML document; `where` names it in messages.

    Raises:
        RecipeError: with line and column.
    """
    return next(iter(parse_documents(text, where, most=1)), None)


def parse_documents(text: str, where: str = "the text", most: int = MOST_DOCUMENTS) -> list[Data]:
    """Read the YAML documents of a text, which `---` divides.

    Raises:
        RecipeError: with line and column.
    """
    try:
        return list(_Document(text).read(most))
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        line, column, problem = mark.line + 1, mark.column + 1, f"{error.problem or error.context}".rstrip(".")
    except yaml.YAMLError as error:
        line, column = _position(text[: getattr(error, "position", 0)])
        problem = getattr(error, "reason", "not YAML")
    except UnicodeEncodeError as error:
        line, column = _position(text[: error.start])
        problem = "a lone surrogate is not a character"
    raise RecipeError(f"{where}, line {line}, column {column}: {problem}.")


def parse_json(text: str, where: str) -> Data:
    """Read one JSON document; duplicate keys are refused.

    Raises:
        RecipeError: with line and column where the parser states them.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key, value in pairs:
            if key in entries:
                raise RecipeError(f"{where}: the key {key!r} is given twice in one object. Remove one.")
            entries[key] = value
        return entries

    try:
        data = json.loads(text, object_pairs_hook=once, parse_int=read_integer)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{where}, line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except RecursionError:
        raise RecipeError(f"{where} is {_TOO_DEEP}.") from None
    except RecipeError:
        raise
    except ValueError as error:  # too many digits
        raise RecipeError(f"{where}: {error}.") from None
    if is_deeper(data, DEEPEST):
        raise RecipeError(f"{where} is {_TOO_DEEP}.")
    return data


class _Document:
    """Builds data from the events of a parser, counting levels and repeated values."""

    def __init__(self, text: str) -> None:
        self._text, self._parser, self._end = text, _LOADER(text), 0
        self._level = self._count = self._repeated = 0
        self._anchors: dict[str, tuple[Any, int] | None] = {}  # values and their sizes; None until they are complete

    def read(self, most: int) -> Iterator[Data]:
        """Read the documents, of which there may be `most`."""
        try:
            self._next()
            for number in itertools.count(1):
                if isinstance(event := self._next(), yaml.StreamEndEvent):
                    return
                if number > most:
                    limit = "one file holds one recipe" if most == 1 else f"a file may hold {most} documents"
                    raise _error(event, f"{'a second' if most == 1 else 'another'} document begins; {limit}")
                self._anchors.clear()
                yield self._value(self._next())
                self._next()
        except yaml.MarkedYAMLError as error:
            raise self._too_deep(error.problem_mark) or error from None

    def _next(self) -> Any:
        event = self._parser.get_event()
        self._end = event.end_mark.index
        return event

    def _value(self, event: Any) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event)
        before, self._count = self._count, self._count + 1
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif self._level == DEEPEST:
            raise _error(event, _TOO_DEEP)
        else:
            self._level += 1
            value = self._mapping(event) if isinstance(event, yaml.MappingStartEvent) else self._list(event)
            self._level -= 1
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _list(self, start: Any) -> list[Any]:
        _check_tag(start, "seq")
        items: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event))
        return items

    def _mapping(self, start: Any) -> dict[str, Any]:
        """Read the keys in their order, then those of merged mappings (`<<`) that are not among them."""
        _check_tag(start, "map")
        own, merged = dict[str, Any](), list[dict[str, Any]]()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = _key(event)
            if key in own:
                raise _error(event, f"the key {key!r} is given twice in one mapping. Remove one")
            following = self._next()
            value = self._value(following)
            if key == "<<" and event.implicit[0]:
                merged += _mappings(value, following)
            else:
                own[key] = value
        for mapping in merged:
            own |= {key: value for key, value in mapping.items() if key not in own}
        return own

    def _aliased(self, event: Any) -> Any:
        name = event.anchor
        if (anchored := self._anchors.get(name)) is None:
            problem = (
                "is inside the value that it refers to" if name in self._anchors else "refers to no earlier anchor"
            )
            raise _error(event, f"the alias *{name} {problem}")
        value, size = anchored
        self._count, self._repeated = self._count + size, self._repeated + size
        if self._repeated > MOST_REPEATED:
            raise _error(event, f"aliases repeat more than {MOST_REPEATED:,} values")
        return value

    def _too_deep(self, mark: Any) -> yaml.MarkedYAMLError | None:
        """The error for too many open brackets, if that is why the parser failed: libyaml has its own limit."""
        ahead = self._text[self._end : mark.index] if mark else ""
        level = self._level + sum(map(ahead.count, "[{")) - sum(map(ahead.count, "]}"))
        return yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark) if level > DEEPEST else None


def _key(event: Any) -> str:
    if isinstance(event, yaml.AliasEvent):
        raise _error(event, "a key must be written out; this one is an alias")
    if not isinstance(event, yaml.ScalarEvent):
        raise _error(event, "a key must be text; this one is a mapping or a list")
    _check_tag(event, "str")
    return event.value


def _mappings(value: Any, event: Any) -> list[dict[str, Any]]:
    many = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in many):
        raise _error(event, "'<<' takes a mapping or a list of mappings")
    return many


def _scalar(event: Any) -> str | int | float | bool | None:
    tag, is_plain = event.tag, event.tag is None and event.implicit[0]
    if not is_plain and tag in (None, "!", f"{_TAG}str"):
        return event.value
    if not is_plain and tag not in _KINDS:
        raise _refused(event)
    try:
        value = resolve_scalar(event.value)
    except ValueError as error:  # too many digits
        raise _error(event, str(error)) from None
    if is_plain:
        return value
    if not isinstance(value, _KINDS[tag]):
        raise _error(event, f"{event.value!r} is not of the type of its tag")
    return float(cast("float", value)) if tag == f"{_TAG}float" else value


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", f"{_TAG}{kind}"):
        raise _refused(event)


def _refused(event: Any) -> yaml.MarkedYAMLError:
    return _error(event, f"the tag {event.tag!r} is refused; a recipe is plain data. Remove it")


def _error(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")
