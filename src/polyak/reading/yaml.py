"""YAML in and out, strictly: data only, every key once, one document, and no surprises of YAML 1.1.

Values are read by the core schema of YAML 1.2: `on`, `no` and `2024-01-31` are text, `1e-5` is a number.  Nothing
but mappings, lists, text, numbers, booleans and null can come out of a file, because nothing else is built here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml
from yaml.composer import Composer

from ..errors import RecipeError

LARGEST_FILE = 10_000_000  # bytes
DEEPEST = 100  # mappings and lists inside one another
MOST_REPEATED = 100_000  # values that aliases may add: some lines of them can stand for billions

Data: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

_C: Any = getattr(yaml, "CSafeLoader", None)
# libyaml parses and Python composes, since levels and aliases can only be counted there.
_PARENT: Any = type("_Parent", (Composer, _C), {"__init__": _C.__init__}) if _C else yaml.SafeLoader
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TAG = "tag:yaml.org,2002:"
_TEXT, _LIST, _MAPPING = f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map"
_PLAIN = f"{_TAG}plain"  # our tag of unquoted text without a tag
_KINDS: dict[str, Any] = {
    _PLAIN: object,
    f"{_TAG}int": int,
    f"{_TAG}float": (int, float),
    f"{_TAG}bool": bool,
    f"{_TAG}null": type(None),
}
_TOO_DEEP = f"nested more than {DEEPEST} levels deep"
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
    return parse_json(text, str(path)) if path.suffix == ".json" else parse_yaml(text, str(path))


def parse_yaml(text: str, where: str = "the text") -> Data:
    """Read one YAML document; `where` names it in messages.

    Raises:
        RecipeError: with line and column.
    """
    try:
        return _Loader(text).document()
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        line, column, problem = mark.line + 1, mark.column + 1, f"{error.problem or error.context}".rstrip(".")
    except yaml.YAMLError as error:
        line, column = _position(text[: getattr(error, "position", 0)])
        problem = getattr(error, "reason", "not YAML")
    except UnicodeEncodeError as error:
        line, column = _position(text[: error.start])
        problem = "half of a surrogate pair is no character"
    raise RecipeError(f"{where}, line {line}, column {column}: {problem}.")


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


def write_yaml(data: object) -> str:
    """Write YAML that reads back as the same data, here and with any YAML 1.1 or 1.2 library."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


class _Writer(_DUMPER):
    pass


def _write_text(writer: Any, text: str) -> Any:
    plain = text.isprintable() and not _INTEGER.fullmatch(text) and resolve_scalar(text) == text
    return writer.represent_scalar(f"{_TAG}str", text, style=None if plain else '"')


def _write_float(writer: Any, number: float) -> Any:
    text = repr(number)
    # YAML 1.1 takes 1e-05 for text.
    return writer.represent_scalar(f"{_TAG}float", text if "." in text else text.replace("e", ".0e"))


_Writer.add_representer(str, _write_text)
_Writer.add_representer(float, _write_float)


def resolve_scalar(text: str) -> str | int | float | bool | None:
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


class _Loader(_PARENT):
    """Composes the only document of a text, counting levels and repeated values, and makes data of its nodes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.anchors: dict[str, Any] = {}
        self._text, self._read = text, 0
        self._depth = self._count = self._repeated = 0
        self._sizes: dict[str, int] = {}  # values in an anchored node; 0 until it is complete

    def document(self) -> Data:
        try:
            self.get_event()
            node = None if self.check_event(yaml.StreamEndEvent) else self.compose_document()
            if not self.check_event(yaml.StreamEndEvent):
                raise _error(self.peek_event(), "a second document begins; one file holds one recipe")
        except yaml.MarkedYAMLError as error:
            raise self._too_deep(error.problem_mark) or error from None
        return None if node is None else _data(node)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self._read = event.end_mark.index
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        if isinstance(event, yaml.AliasEvent):
            self._count_alias(event, is_key)
            return super().compose_node(parent, index)
        if not isinstance(event, yaml.ScalarEvent):
            self._check_collection(event, is_key)
        if event.tag == "!":  # the text `! 12`
            event.implicit = (False, True)
        self.anchors.pop(event.anchor, None)  # YAML lets an anchor be defined again
        before, self._sizes[event.anchor] = self._count, 0
        self._count, self._depth = self._count + 1, self._depth + 1
        node = super().compose_node(parent, index)
        self._depth, self._sizes[event.anchor] = self._depth - 1, self._count - before
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Tag what has no tag by its kind; unquoted text is resolved when data are made of it."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return _LIST if kind is yaml.SequenceNode else _MAPPING

    def _check_collection(self, event: Any, is_key: bool) -> None:
        if is_key:
            raise _error(event, "a key must be text; this one is a mapping or a list")
        if self._depth == DEEPEST:
            raise _error(event, _TOO_DEEP)

    def _count_alias(self, event: Any, is_key: bool) -> None:
        if is_key:
            raise _error(event, "a key must be written out; this one is an alias")
        size = self._sizes.get(event.anchor)
        if not size:
            problem = "refers to nothing before it" if size is None else "stands inside what it refers to"
            raise _error(event, f"the alias *{event.anchor} {problem}")
        self._count, self._repeated = self._count + size, self._repeated + size
        if self._repeated > MOST_REPEATED:
            raise _error(event, f"aliases repeat more than {MOST_REPEATED:,} values")

    def _too_deep(self, mark: Any) -> yaml.MarkedYAMLError | None:
        """Tell whether a parser failed at too many brackets: libyaml has a limit of its own, and reads ahead."""
        ahead = self._text[self._read : mark.index] if mark else ""
        depth = self._depth + sum(map(ahead.count, "[{")) - sum(map(ahead.count, "]}"))
        return yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark) if depth > DEEPEST else None


def _data(node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == _LIST:
        return [_data(inner) for inner in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
        return _mapping(node)
    raise _refused(node)


def _scalar(node: Any) -> str | int | float | bool | None:
    if node.tag == _TEXT:
        return node.value
    if node.tag not in _KINDS:
        raise _refused(node)
    try:
        value = resolve_scalar(node.value)
    except ValueError as error:  # a number of thousands of digits
        raise _error(node, str(error)) from None
    if not isinstance(value, _KINDS[node.tag]):
        raise _error(node, f"{node.value!r} is not what its tag says")
    return float(cast("float", value)) if node.tag == f"{_TAG}float" else value


def _mapping(node: Any) -> dict[str, Any]:
    """Read the keys in their order, then those of merged mappings (`<<`) that are not among them."""
    own, merged = dict[str, Any](), list[Any]()
    for key, inner in node.value:
        if key.tag not in (_PLAIN, _TEXT):
            raise _refused(key)
        if key.tag == _PLAIN and key.value == "<<":
            merged += inner.value if isinstance(inner, yaml.SequenceNode) else [inner]
        elif key.value in own:
            raise _error(key, f"the key {key.value!r} stands twice in one mapping. Remove one")
        else:
            own[key.value] = _data(inner)
    for inner in merged:
        if not isinstance(data := _data(inner), dict):
            raise _error(inner, "'<<' takes a mapping or a list of mappings")
        own |= {key: value for key, value in data.items() if key not in own}
    return own


def _refused(node: Any) -> yaml.MarkedYAMLError:
    return _error(node, f"the tag {node.tag!r} is refused; a recipe is plain data. Remove it")


def _error(where: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")
