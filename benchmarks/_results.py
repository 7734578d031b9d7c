"""Results: measured one by one, printed and kept as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _process import Failed

NONE = "–"
KEYS = {"rows": "work", "facts": "what"}
THEIRS = "mergekit, last column above"


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        value: In words, with units.
        target: What it should not exceed, in words.
        met: Whether it does not.
        entry: What is kept of a row beyond its name.
    """

    value: str
    target: str = NONE
    met: bool = True
    entry: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One line of a table: `kind` is rows or facts."""

    kind: str
    name: str
    measure: Callable[[], Measured]


class Results:
    """The file that the pages are made from; mergekit's times come from `mergekit.json` beside it.

    Args:
        path: The file.
        machine: What was measured on.
        afresh: Forget what stands there; else what is measured replaces what has the same name.

    Raises:
        Failed: what stands there, and is not to be forgotten, is of another machine.
    """

    def __init__(self, path: Path, machine: Mapping[str, str], *, afresh: bool) -> None:
        old = {} if afresh else _read(path)
        if old and old["machine"] != machine:
            raise Failed(f"{path.name} is of another machine: measure everything, or name another file by --results")
        self._path, self._machine = path, machine
        self._commands: list[str] = old.get("measured_with", [])
        self._entries = {kind: old.get(kind, []) for kind in KEYS}

    def ran(self, command: str) -> None:
        """Name the command that the next numbers come from."""
        self._commands = list(dict.fromkeys([*self._commands, command]))

    def has(self, line: Line) -> bool:
        """Whether a line has been measured."""
        key = KEYS[line.kind]
        return any(one[key] == line.name for one in self._entries[line.kind])

    def measure(self, lines: Iterable[Line]) -> int:
        """Measure line by line; one that fails is told and does not keep the others from being measured.

        Returns:
            How many failed.
        """
        failed = 0
        for line in lines:
            try:
                measured = line.measure()
            except (Failed, OSError) as error:
                failed += 1
                say(line.name, f"not measured: {error}")
            else:
                self._keep(line, measured)
                say(line.name, f"{measured.value:<68} {_verdict(measured)}")
        return failed

    def _keep(self, line: Line, measured: Measured) -> None:
        key = KEYS[line.kind]
        entry = {key: line.name, **(measured.entry or {"value": measured.value, "target": measured.target})}
        entries = self._entries[line.kind]
        place = next((i for i, one in enumerate(entries) if one[key] == line.name), len(entries))
        entries[place : place + 1] = [entry]
        self.write()

    def write(self) -> None:
        """Write what there is so far."""
        theirs = _read(mergekit_file(self._path))
        seconds = theirs.get("seconds", {})
        facts = [one for one in self._entries["facts"] if one["what"] != THEIRS]
        if theirs:
            facts.append({"what": THEIRS, "value": _whereabouts(theirs, self._machine), "target": NONE})
        data = {
            "machine": self._machine,
            "commands": "; ".join(self._commands),
            "measured_with": self._commands,
            "rows": [{**row, "mergekit_s": seconds.get(row["work"])} for row in self._entries["rows"]],
            "facts": facts,
        }
        write_json(self._path, data)


def mergekit_file(results: Path) -> Path:
    """Where mergekit's times are kept."""
    return results.with_name("mergekit.json")


def refresh(path: Path) -> None:
    """Bring mergekit's times in a file of results up to date."""
    found = _read(path)
    if found:
        Results(path, found["machine"], afresh=False).write()


def write_json(path: Path, data: object) -> None:
    """One file, for people and programs."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def say(name: str, text: str) -> None:
    """Print a line of the table."""
    print(f"{name:<66} {text}".rstrip(), flush=True)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _whereabouts(theirs: Mapping[str, Any], machine: Mapping[str, str]) -> str:
    same = theirs["machine"] == machine
    where = "the same machine" if same else ", ".join(f"{name}: {value}" for name, value in theirs["machine"].items())
    return f"version {theirs['version']}, one run a row, on {where}"


def _verdict(measured: Measured) -> str:
    if measured.target == NONE:
        return ""
    return f"target {measured.target}: {'met' if measured.met else 'MISSED'}"
