"""YAML in and out, strictly: data only, every key once, one document, and no surprises of YAML 1.1.

Values are read by the core schema of YAML 1.2: `on`, `no` and `2024-01-31` are text, `1e-5` is a number.  Nothing
but mappings, lists, text, numbers, booleans and null can come out of a file, because nothing else is built here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml

from ..errors import RecipeError

LARGEST_FILE = 10_000_000  # bytes
DEEPEST = 100  # mappings and lists inside one another
MOST_REPEATED = 100_000  # values that aliases may add: some lines of them can stand for billions

Data: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_file(path: Path) -> Data:
    """Read a YAML or (by its suffix) JSON file.

    Raises:
        RecipeError: it is missing, too large, not UTF-8, or not strictly one document.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(raw) > LARGEST_FILE:
        raise RecipeError(f"{path} is larger than {LARGEST_FILE:,} bytes, the most that a recipe may have.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(raw[: error.start].decode("utf-8", "replace"))
        raise RecipeError(f"{path}, line {line}, column {column}: not UTF-8. Save the file as UTF-8.") from None
    return parse_json(text, str(path)) if path.suffix == ".json" else parse(text, str(path))


def parse(text: str, where: str = "the text") -> Data:
    """Read one YAML document; `where` names it in messages.

    Raises:
        RecipeError: with line and column.
    """
    builder = _Builder(where)
    try:
        for event in cast("Any", yaml).parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        raise builder.error(mark, f"{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        line, column = _position(text[:position])
        reason = getattr(error, "reason", "not YAML")
        raise RecipeError(f"{where}, line {line}, column {column}: {reason}.") from None
    except UnicodeEncodeError as error:
        line, column = _position(text[: error.start])
        raise RecipeError(f"{where}, line {line}, column {column}: half of a surrogate pair is no character.") from None
    return builder.document


def parse_json(text: str, where: str) -> Data:
    """Read one JSON document, every key once.

    Raises:
        RecipeError: with line and column where JSON has them.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise RecipeError(f"{where}: the key {key!r} stands twice in one object. Remove one.")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{where}, line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except RecursionError:
        raise RecipeError(f"{where} is nested more than {DEEPEST} levels deep.") from None
    except RecipeError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise RecipeError(f"{where}: {error}.") from None


def write(data: object) -> str:
    """Write YAML that reads back as the same data, here and with any YAML 1.1 or 1.2 library."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


class _Writer(_DUMPER):
    pass


def _write_text(writer: Any, text: str) -> Any:
    plain = text.isprintable() and not _INTEGER.fullmatch(text) and resolve(text) == text
    return writer.represent_scalar(f"{_TAG}str", text, style=None if plain else '"')


def _write_float(writer: Any, number: float) -> Any:
    text = repr(number)
    # YAML 1.1 takes 1e-05 for text.
    return writer.represent_scalar(f"{_TAG}float", text if "." in text else text.replace("e", ".0e"))


_Writer.add_representer(str, _write_text)
_Writer.add_representer(float, _write_float)


def resolve(text: str) -> str | int | float | bool | None:
    """What unquoted text means.

    Raises:
        ValueError: it is a whole number with thousands of digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1].isalpha() else text)
    return text


@dataclass
class _Frame:
    """A mapping or list that is being read."""

    value: Any
    mark: Any
    anchor: str | None
    key: str | None = None
    merged: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    size: int = 1


class _Builder:
    """Turns the events of a parser into data, without recursion."""

    def __init__(self, where: str) -> None:
        self.document: Data = None
        self._where = where
        self._documents = 0
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._repeated = 0

    def error(self, mark: Any, problem: str) -> RecipeError:
        return RecipeError(f"{self._where}, line {mark.line + 1}, column {mark.column + 1}: {problem.rstrip('.')}.")

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self.error(event.start_mark, "a second document begins; one file holds one recipe")

    def _scalar(self, event: Any) -> None:
        text, mark = event.value, event.start_mark
        if self._wants_key:
            self._untagged(event)
            self._begin_key(text, mark, plain=event.implicit[0])
            return
        try:
            value = text if event.tag == "!" else resolve(text) if event.implicit[0] else self._tagged(event)
        except RecipeError:
            raise
        except ValueError as error:  # a number of thousands of digits
            raise self.error(mark, str(error)) from None
        self._remember(event.anchor, value, 1)
        self._add(value, 1, mark)

    def _tagged(self, event: Any) -> Any:
        if event.tag in (None, f"{_TAG}str"):
            return event.value
        kinds = {f"{_TAG}int": int, f"{_TAG}float": (int, float), f"{_TAG}bool": bool, f"{_TAG}null": type(None)}
        if event.tag not in kinds:
            raise self._refused(event)
        value = resolve(event.value)
        if not isinstance(value, kinds[event.tag]):
            raise self.error(event.start_mark, f"{event.value!r} is not what its tag says")
        return float(cast("float", value)) if event.tag == f"{_TAG}float" else value

    def _untagged(self, event: Any) -> None:
        if event.tag not in (None, "!", f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq"):
            raise self._refused(event)

    def _refused(self, event: Any) -> RecipeError:
        return self.error(event.start_mark, f"the tag {event.tag!r} is refused; a recipe is plain data. Remove it")

    def _open(self, event: Any) -> None:
        self._untagged(event)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if self._wants_key:
            raise self.error(event.start_mark, "a key must be text; this one is a mapping or a list")
        if event.tag not in (None, "!", f"{_TAG}map" if mapping else f"{_TAG}seq"):
            raise self._refused(event)
        if len(self._stack) == DEEPEST:
            raise self.error(event.start_mark, f"nested more than {DEEPEST} levels deep")
        self._stack.append(_Frame({} if mapping else [], event.start_mark, event.anchor))

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        for mapping in frame.merged:
            for key, value in mapping.items():
                frame.value.setdefault(key, value)
        self._remember(frame.anchor, frame.value, frame.size)
        self._add(frame.value, frame.size, frame.mark)

    def _alias(self, event: Any) -> None:
        if self._wants_key:
            raise self.error(event.start_mark, "a key must be written out; this one is an alias")
        if any(frame.anchor == event.anchor for frame in self._stack):
            raise self.error(event.start_mark, f"the alias *{event.anchor} stands inside what it refers to")
        if event.anchor not in self._anchors:
            raise self.error(event.start_mark, f"the alias *{event.anchor} refers to nothing before it")
        value, size = self._anchors[event.anchor]
        self._repeated += size
        if self._repeated > MOST_REPEATED:
            raise self.error(event.start_mark, f"aliases repeat more than {MOST_REPEATED:,} values")
        self._add(value, size, event.start_mark)

    @property
    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None

    def _begin_key(self, key: str, mark: Any, *, plain: bool) -> None:
        frame = self._stack[-1]
        if key in frame.value:
            raise self.error(mark, f"the key {key!r} stands twice in one mapping. Remove one")
        frame.key = key
        if not (plain and key == "<<"):
            frame.value[key] = None

    def _remember(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = value, size

    def _add(self, value: Any, size: int, mark: Any) -> None:
        if not self._stack:
            self.document = value
            return
        frame = self._stack[-1]
        frame.size += size
        if frame.key is None:
            frame.value.append(value)
        elif frame.key in frame.value:
            frame.value[frame.key] = value
        else:
            self._merge(frame, value, mark)
        frame.key = None

    def _merge(self, frame: _Frame, value: Any, mark: Any) -> None:
        many = cast("list[Any]", value) if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in many):
            raise self.error(mark, "'<<' takes a mapping or a list of mappings")
        frame.merged += many


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")
