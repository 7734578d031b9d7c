"""The generated tables of merge methods: from signatures, docstrings, rivals.json and the benchmark's results."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyak import methods
from polyak.methods import REQUIRED, Law, Method, Setting
from polyak.recipe.mergekit.methods import TRANSLATIONS

ROOT = Path(__file__).parents[1]
SPEEDS = ROOT / "benchmarks" / "methods.json"
RIVALS = ROOT / "docs" / "rivals.json"
MERGEKIT = "mergekit 0.1.5"
NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def methods_table() -> str:
    """The merge methods, from their signatures."""
    return table(["method", "what it does", "source"], ([f"`{m.name}`", m.summary, m.source] for m in by_name()))


def methods_compared() -> str:
    """The needs and costs of each method, and other tools that have it."""
    speeds = _speeds()
    head = ["method", "also in", "base", "models", "needs", "reads", *(["ns per parameter"] if speeds else []), "laws"]
    return table(head, (_compared(method, speeds) for method in by_name()))


def methods_speeds() -> str:
    """The cost of each method and some variants, with the limit of the machine and mergekit."""
    if not SPEEDS.exists():
        return (
            "No times are stored in this checkout: `python benchmarks/method_speed.py` measures them, and `make fix` "
            "writes them here."
        )
    found = json.loads(SPEEDS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    head = ["method, shape", "limit", "polyak", "ratio", "target", "ns", "ns of CPU time", "mergekit 0.1.5"]
    rows = sorted(found["rows"], key=lambda row: row["work"])
    return (
        f"Measured with `{found['commands']}` ({machine}): three models, or as many as the method takes, and the base "
        "if it uses one. Nanoseconds are per parameter of the result. mergekit was timed once per row, with its own "
        f"settings where it lacks one of polyak's.\n\n{table(head, map(_speed, rows))}"
    )


def _speed(row: Mapping[str, Any]) -> list[str]:
    theirs = row.get("mergekit_s")
    return [
        row["work"], f"{row['limit_s']:.3g} s", f"{row['ours_s']:.3g} s", f"{row['ratio']:.2f}", row["target"],
        f"{row['ns_per_parameter']:.3g}", f"{row['cpu_ns_per_parameter']:.3g}",
        NONE if theirs is None else f"{theirs:.3g} s",
    ]  # fmt: skip


def methods_settings() -> str:
    """The settings of the merge methods."""
    return table(["method", "settings"], ([f"`{m.name}`", _settings(m)] for m in by_name()))


def methods_departures() -> str:
    """Departures of the merge methods from their sources, from their docstrings."""
    return table(["method", "departs from paper or official code"], ([f"`{m.name}`", departures(m)] for m in by_name()))


def departures(method: Method) -> str:
    """The section `Departures:` of a method's docstring."""
    section = re.search(r"^Departures:\n(.*?)^\S", inspect.getdoc(method.fn) or "", re.DOTALL | re.MULTILINE)
    return " ".join(section[1].split()) if section else NONE


def by_name() -> list[Method]:
    """The methods of the package."""
    found = (m for m in methods.registry.values() if m.fn.__module__.startswith(f"{methods.__name__}."))
    return sorted(found, key=lambda method: method.name)


def _compared(method: Method, speeds: Mapping[str, str]) -> list[str]:
    low, high = method.models
    count = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
    base = "yes" if method.needs_base else "if present" if method.uses_base else "no"
    laws = ", ".join(law.name.lower() for law in Law if law in method.laws) or NONE
    speed = [speeds.get(method.name, NONE)] if speeds else []
    return [f"`{method.name}`", _also_in(method), base, count, _needs(method), _reads(method), *speed, laws]


def _needs(method: Method) -> str:
    """The inputs of a merge other than models and base."""
    random = ["random numbers"] if method.is_random else []
    return ", ".join([*(f"`{kind.name}`" for kind in method.statistics.values()), *random]) or NONE


def _also_in(method: Method) -> str:
    rivals = {MERGEKIT: TRANSLATIONS, **json.loads(RIVALS.read_text(encoding="utf-8"))}
    return ", ".join(rival for rival, theirs in rivals.items() if method.name in theirs) or NONE


def _speeds() -> dict[str, str]:
    """Nanoseconds per parameter of the result, with default settings."""
    rows = json.loads(SPEEDS.read_text(encoding="utf-8"))["rows"] if SPEEDS.exists() else []
    times: dict[str, str] = {}
    for row in rows:
        name, _, variant = row["work"].partition(", ")
        if ", " not in variant:  # anything in between is a setting
            times[name] = f"{row['ns_per_parameter']:.3g}"
    return times


def _settings(method: Method) -> str:
    return "<br>".join(_setting(s) for s in method.settings.values()) or NONE


def _setting(setting: Setting) -> str:
    return f"`{setting.name}`: {values(setting)}"


def values(setting: Setting) -> str:
    """The kind, range and default of a setting."""
    if isinstance(setting.kind, tuple):
        kind = " | ".join(setting.kind)
    else:
        kind = {bool: "true | false", int: "integer", float: "number", str: "pattern"}[setting.kind]
    kind += f" {setting.range}" if setting.range else ""
    kind += ", per model" if setting.per_model else ""
    default = f"default `{setting.default}`" if setting.kind is str else _default(setting.default)
    return f"{kind}; {default}"


def _default(default: object) -> str:
    if default is REQUIRED:
        return "required"
    if isinstance(default, bool):
        return f"default {str(default).lower()}"
    return f"default {default:g}" if isinstance(default, float) else f"default {default}"


def _reads(method: Method) -> str:
    if Law.ELEMENTWISE not in method.laws:
        tiles = "tiles of whole rows" if Law.ROWS in method.laws else "whole tensors"
        return f"{tiles}, after first passes" if method.passes else tiles
    return "tiles, after first passes" if method.passes else "tiles, once"
