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
ADAPTERS = ROOT / "benchmarks" / "adapters.json"
SPECTRAL = ROOT / "benchmarks" / "spectral.json"
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
    base = "yes" if method.needs_base else "if there is one" if method.uses_base else "no"
    return [f"`{method.name}`", method.summary, base, count, "yes" if method.is_random else "no", _reads(method)]


def _how(method: Method) -> list[str]:
    settings = "<br>".join(_setting(s) for s in method.settings.values()) or NONE
    laws = ", ".join(law.name.lower() for law in Law if law in method.laws) or NONE
    return [f"`{method.name}`", settings, laws, method.source]


def _setting(setting: Setting) -> str:
    if isinstance(setting.kind, tuple):
        kind = " | ".join(setting.kind)
    else:
        kind = {bool: "true | false", int: "whole number", float: "number", str: "pattern"}[setting.kind]
    kind += f" {setting.range}" if setting.range else ""
    kind += ", one a model" if setting.per_model else ""
    default = f"default `{setting.default}`" if setting.kind is str else _default(setting.default)
    return f"`{setting.name}`: {kind}; {default}"


def _default(default: object) -> str:
    if default is REQUIRED:
        return "required"
    if isinstance(default, bool):
        return f"default {str(default).lower()}"
    return f"default {default:g}" if isinstance(default, float) else f"default {default}"


def _reads(method: Method) -> str:
    if Law.ELEMENTWISE not in method.laws:
        tiles = "in tiles of whole rows" if Law.ROWS in method.laws else "a whole tensor at a time"
        return f"{tiles}, with first passes" if method.passes else tiles
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


def adapters_benchmark() -> str:
    """The table of merges of adapters, or how to produce it."""
    if not ADAPTERS.exists():
        return "No results are kept in this checkout yet: `python benchmarks/adapter_speed.py` measures them."
    found = json.loads(ADAPTERS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    said = f"Measured with `{found['command']}` on one machine ({machine}). {found['what']}"
    head = ["work", "modules", "seconds", "seconds a module", "relative error against float64"]
    rows = [
        [
            r["work"],
            str(r["modules"]),
            f"{r['seconds']:.3g}",
            f"{r['seconds'] / r['modules']:.3g}",
            f"{r['error']:.10f}",
        ]
        for r in found["rows"]
    ]
    return f"{said}\n\n{table(head, rows)}\n\n{found['ratio']}"


def spectral_benchmark() -> str:
    """The table of merges of whole matrices, or how to produce it."""
    if not SPECTRAL.exists():
        return (
            "No results are kept in this checkout yet. `make bench-spectral` measures them, and `make fix` writes them."
        )
    found = json.loads(SPECTRAL.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    head = ["work", "against", "theirs", "polyak", "ratio", "CPU time", "polyak's", "ratio", "target", "their error"]
    said = (
        f"Measured with `python benchmarks/spectral_speed.py` on one machine ({machine}): {found['experts']} experts "
        f"of the {found['shape']} shape. Errors are relative to float64."
    )
    how = "; ".join(dict.fromkeys(_measured_how(row) for row in found["rows"]))
    load = max(float(row["load"]) for row in found["rows"])
    said = f"{said} {how}. The load was {load:g} at the end."
    return f"{said}\n\n{table([*head, 'our error'], map(_spectral_row, found['rows']))}"


def _measured_how(row: Mapping[str, Any]) -> str:
    layers = f"{row['layers']} of {row['layers_in_all']} layers; the others' times are those of one layer, multiplied"
    return f"Threads: {row['threads']}, runs: {row['runs']}, {layers}"


def _spectral_row(row: Mapping[str, Any]) -> list[str]:
    times = [_seconds(row["their_s"]), _seconds(row["our_s"]), f"{row['ratio']:.2f}"]
    times += [_seconds(row["their_cpu_s"]), _seconds(row["our_cpu_s"]), f"{row['cpu_ratio']:.2f}"]
    errors = [f"{row[name]:.1e}" if name in row else NONE for name in ("their_error", "our_error")]
    return [f"`{row['work']}`", row["against"], *times, row["target"], *errors]


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


def fisher_accuracy() -> str:
    """How far measured Fisher information is from what it should be."""
    found = json.loads((RESULTS.parent / "fisher_accuracy.json").read_text(encoding="utf-8"))
    head = [
        "model",
        "batch size",
        "error of polyak",
        "error of the squared batch gradient",
        "ratio of its sum",
        "cosine",
    ]
    rows = [[row["model"], str(row["batch"]), f"{row['error']:.1e}", *(f"{row[f'squared_{key}']:.2f}" for key in
            ("error", "ratio", "cosine"))] for row in found["rows"]]  # fmt: skip
    return table(head, rows)


PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {"benchmark": benchmark},
    "docs/adapters.md": {"adapters": adapters_benchmark},
    "docs/choosing-a-method.md": {"methods": methods_table, "speed of decompositions": spectral_benchmark},
    "docs/layers-and-vocabularies.md": {"vocabulary benchmark": vocabulary_benchmark},
    "docs/recipes.md": {
        "keys of a recipe": keys_of("Recipe"),
        "keys of a model": keys_of("Model"),
        "keys of an adapter": keys_of("Lora"),
        "keys of a rule": keys_of("Rule"),
        "keys of a factorisation": keys_of("Factorisation"),
        "keys of a vocabulary": keys_of("Vocabulary"),
        "keys of a token": keys_of("Token"),
        "exit codes": exit_codes,
    },
    "docs/statistics.md": {"accuracy of Fisher information": fisher_accuracy},
}

if __name__ == "__main__":
    main()
