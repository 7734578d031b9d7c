"""Write the generated parts of the pages: `make fix` runs this, and a test fails when one is stale.

A part lies between `<!-- NAME:start -->` and `<!-- NAME:end -->`; what stands there is replaced.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyak import errors, methods, recipe
from polyak.methods import REQUIRED, Law, Method, Setting

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
VOCABULARY_RESULTS = ROOT / "benchmarks" / "vocabulary_results.json"
NONE = "–"


def main() -> None:
    """Bring every page up to date."""
    for page, text in pages().items():
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} refreshed")


def pages() -> dict[Path, str]:
    """Each page with a generated part, as it should be."""
    methods.load_all()
    return {ROOT / name: _filled((ROOT / name).read_text(encoding="utf-8"), parts) for name, parts in PARTS.items()}


def _filled(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    for name, part in parts.items():
        start, end = f"<!-- {name}:start -->\n", f"<!-- {name}:end -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"expected one part {start.strip()} ... {end}")
        replacement = f"{start}\n{part().strip()}\n\n{end}"
        text = pattern.sub(lambda _, replacement=replacement: replacement, text)
    return text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def methods_table() -> str:
    """The merge methods, from what their signatures declare."""
    found = sorted(_built_in(), key=lambda method: method.name)
    what = ["method", "what it does", "base", "models", "random", "reads"]
    how = ["method", "settings", "laws", "source"]
    return f"{table(what, map(_what, found))}\n\n{table(how, map(_how, found))}"


def _built_in() -> Iterable[Method]:
    return (m for m in methods.registry.values() if m.fn.__module__.startswith(f"{methods.__name__}."))


def _what(method: Method) -> list[str]:
    low, high = method.models
    count = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
    base, random = ("yes" if fact else "no" for fact in (method.needs_base, method.is_random))
    return [f"`{method.name}`", method.summary, base, count, random, _reads(method)]


def _how(method: Method) -> list[str]:
    settings = "<br>".join(_setting(s) for s in method.settings.values()) or NONE
    laws = ", ".join(law.name.lower() for law in Law if law in method.laws) or NONE
    return [f"`{method.name}`", settings, laws, method.source]


def _setting(setting: Setting) -> str:
    if isinstance(setting.kind, tuple):
        kind = " | ".join(setting.kind)
    else:
        kind = {bool: "true | false", int: "whole number", float: "number"}[setting.kind]
    kind += f" {setting.range}" if setting.range else ""
    kind += ", one a model" if setting.per_model else ""
    return f"`{setting.name}`: {kind}; {_default(setting.default)}"


def _default(default: object) -> str:
    if default is REQUIRED:
        return "required"
    if isinstance(default, bool):
        return f"default {str(default).lower()}"
    return f"default {default:g}" if isinstance(default, float) else f"default {default}"


def _reads(method: Method) -> str:
    if Law.ELEMENTWISE not in method.laws:
        return "a whole tensor at a time"
    return "in tiles, with first passes" if method.passes else "in tiles, once"


def keys_of(definition: str) -> Callable[[], str]:
    """A table of the keys of one part of a recipe, from its JSON schema."""

    def keys_table() -> str:
        found = recipe.schema()["$defs"][definition]
        described = next((one for one in found.get("anyOf", [found]) if "properties" in one), found)
        rows = [
            [f"`{key}`", "required" if key in described["required"] else "", one["description"]]
            for key, one in described["properties"].items()
            if "description" in one
        ]
        return table(["key", "", "meaning"], rows)

    return keys_table


def exit_codes() -> str:
    """The exit codes and the exceptions behind them, from `polyak.errors`."""
    by_code: dict[int, list[type[errors.PolyakError]]] = {}
    for one in vars(errors).values():
        if inspect.isclass(one) and issubclass(one, errors.PolyakError) and one.exit_code > 1:
            by_code.setdefault(one.exit_code, []).append(one)
    rows = [["0", NONE, "Done."], ["2", NONE, "The command was used wrongly: an unknown option, a missing argument."]]
    for code, kinds in sorted(by_code.items()):
        rows += [[str(code), f"`{kind.__name__}`", (inspect.getdoc(kind) or "").partition("\n")[0]] for kind in kinds]
    return table(["code", "exception in Python", "meaning"], [*rows, ["130", NONE, "Interrupted from the keyboard."]])


def benchmark() -> str:
    """The benchmark's tables, or how to produce them."""
    if not RESULTS.exists():
        return "No results are kept in this checkout yet. `make bench` measures them, and `make fix` writes them here."
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    head = ["work", "limit of the machine", "polyak", "ratio", "target", "mergekit 0.1.5"]
    parts = [
        f"Measured with `{found['commands']}` on one machine ({machine}). The limit is what the machine needs for the "
        "same work without any merging.",
        table(head, [_benchmark_row(row) for row in found["rows"]]),
        table(["fact", "value", "target"], [[fact["what"], fact["value"], fact["target"]] for fact in found["facts"]]),
    ]
    return "\n\n".join(parts)


def vocabulary_benchmark() -> str:
    """The times for tables of tokens, or how to measure them."""
    if not VOCABULARY_RESULTS.exists():
        return "No results are kept in this checkout yet: `python benchmarks/vocabulary_speed.py` measures them."
    found = json.loads(VOCABULARY_RESULTS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    theirs = found["mergekit_s"] or {}
    stages = {"tables": "gathering the tables", "all": "tokenizers, union and tables"}
    rows = [
        [
            said,
            _seconds(found["polyak_s"][stage]),
            _seconds(theirs[stage]) if theirs else NONE,
            f"{found['ratio'][stage]:.3g}" if theirs else NONE,
        ]
        for stage, said in stages.items()
    ]
    about = (
        f"{found['models']} models with {found['tokens']:,} tokens each, two tables a model, {found['hidden']} numbers "
        "a row; the rows of both tools are the same. `python benchmarks/vocabulary_speed.py --mergekit PYTHON` on one "
        f"machine ({machine}). The target is {found['target']} times as fast as mergekit's loop over the tables."
    )
    return f"{about}\n\n{table(['work', 'polyak', 'mergekit 0.1.5', 'times as fast'], rows)}"


def _benchmark_row(row: Mapping[str, Any]) -> list[str]:
    theirs = row["mergekit_s"]
    times = [_seconds(row["limit_s"]), _seconds(row["ours_s"]), f"{row['ratio']:.2f}", row["target"]]
    return [row["work"], *times, NONE if theirs is None else _seconds(theirs)]


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {"benchmark": benchmark},
    "docs/choosing-a-method.md": {"methods": methods_table},
    "docs/layers-and-vocabularies.md": {"vocabulary benchmark": vocabulary_benchmark},
    "docs/recipes.md": {
        "keys of a recipe": keys_of("Recipe"),
        "keys of a model": keys_of("Model"),
        "keys of an adapter": keys_of("Lora"),
        "keys of a rule": keys_of("Rule"),
        "keys of a vocabulary": keys_of("Vocabulary"),
        "keys of a token": keys_of("Token"),
        "exit codes": exit_codes,
    },
}

if __name__ == "__main__":
    main()
