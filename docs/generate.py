"""Write the generated parts of the pages: `make fix` runs this, and a test fails if one is stale.

A part is enclosed in `<!-- NAME:start -->` and `<!-- NAME:end -->`; its content is replaced.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _extensions import (
    averages_table,
    formats_table,
    keys_of_kinds,
    keys_of_training,
    kinds_table,
    learners_table,
    statistics_table,
    training_table,
)
from _gallery import gallery
from _methods import (
    MERGEKIT,
    NONE,
    ROOT,
    methods_compared,
    methods_departures,
    methods_settings,
    methods_speeds,
    methods_table,
    table,
)
from _reports import reports_table
from _suites import memory_of_learning, profile_of_merges, suite_adapters, suite_of_languages, suite_of_texts

from polyak import errors, methods, recipe

RESULTS = ROOT / "benchmarks" / "results.json"
ADAPTERS = ROOT / "benchmarks" / "adapters.json"
SPECTRAL = ROOT / "benchmarks" / "spectral.json"
VOCABULARY_RESULTS = ROOT / "benchmarks" / "vocabulary_results.json"
SEARCH = ROOT / "benchmarks" / "search_speed.json"
FRONT_PAGE = (
    "linear, 3 models, 500M",
    "SLERP, 2 models, 500M",
    "TIES, 3 models and base, 500M",
    "DARE-TIES, 3 models and base, 500M",
    "Model Stock, 3 models and base, 500M",
)


def main() -> None:
    """Bring every page up to date."""
    for page, text in pages().items():
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} refreshed")


def pages() -> dict[Path, str]:
    """The text of each page with a generated part, up to date."""
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
    rows = [["0", NONE, "Done."], ["2", NONE, "Incorrect usage: an unknown option, a missing argument."]]
    for code, kinds in sorted(by_code.items()):
        rows += [[str(code), f"`{kind.__name__}`", (inspect.getdoc(kind) or "").partition("\n")[0]] for kind in kinds]
    return table(["code", "exception in Python", "meaning"], [*rows, ["130", NONE, "Interrupted from the keyboard."]])


def rivals() -> str:
    """Five rows of the benchmark with mergekit, for the front page."""
    if not RESULTS.exists():
        return "No results are stored in this checkout. `make bench` measures them, and `make fix` writes them here."
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = {row["work"]: row for row in found["rows"]}
    machine = found["machine"]
    head = ["500 million parameters, bfloat16", "copying the files", "polyak", MERGEKIT, "speed-up"]
    return (
        f"{table(head, [_beside_mergekit(rows[work]) for work in FRONT_PAGE])}\n\nMeasured on {machine['CPUs']} CPUs "
        f"({machine['CPU']}); polyak: median of at least 3 runs, {MERGEKIT}: one run. Copying means reading all inputs "
        "and writing one output."
    )


def _beside_mergekit(row: Mapping[str, Any]) -> list[str]:
    ours, theirs = row["ours_s"], row["mergekit_s"]
    times = [_seconds(row["limit_s"]), _seconds(ours), _seconds(theirs), f"{theirs / ours:.1f} times"]
    return [row["work"].removesuffix(", 500M"), *times]


def benchmark() -> str:
    """The benchmark's tables, or how to produce them."""
    if not RESULTS.exists():
        return "No results are stored in this checkout. `make bench` measures them, and `make fix` writes them here."
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    commands = found["commands"].replace("; ", "\n")
    head = ["work", "limit of the machine", "polyak", "ratio", "target", MERGEKIT]
    parts = [
        f"Measured on one machine ({machine}) with",
        f"```sh\n{commands}\n```",
        table(head, [_benchmark_row(row) for row in found["rows"]]),
        table(["fact", "value", "target"], [[fact["what"], fact["value"], fact["target"]] for fact in found["facts"]]),
    ]
    return "\n\n".join(parts)


def vocabulary_benchmark() -> str:
    """The times for embedding tables, or how to measure them."""
    if not VOCABULARY_RESULTS.exists():
        return "No results are stored in this checkout: `python benchmarks/vocabulary_speed.py` measures them."
    found = json.loads(VOCABULARY_RESULTS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    theirs = found["mergekit_s"] or {}
    stages = {"tables": "gathering the embedding tables", "all": "tokenizers, union and embedding tables"}
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
        f"{found['models']} models with {found['tokens']:,} tokens each, two tables per model, {found['hidden']} "
        "numbers per row; both tools produce the same rows. `python benchmarks/vocabulary_speed.py --mergekit PYTHON` "
        f"on one machine ({machine}). The target is {found['target']} times the speed of mergekit's loop."
    )
    return f"{about}\n\n{table(['work', 'polyak', 'mergekit 0.1.5', 'speed-up'], rows)}"


def _benchmark_row(row: Mapping[str, Any]) -> list[str]:
    theirs = row["mergekit_s"]
    times = [_seconds(row["limit_s"]), _seconds(row["ours_s"]), f"{row['ratio']:.2f}", row["target"]]
    return [row["work"], *times, NONE if theirs is None else _seconds(theirs)]


def adapters_benchmark() -> str:
    """The table of merges of adapters, or how to produce it."""
    if not ADAPTERS.exists():
        return "No results are stored in this checkout: `python benchmarks/adapter_speed.py` measures them."
    found = json.loads(ADAPTERS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    said = f"Measured with `{found['command']}` on one machine ({machine}). {found['what']}"
    head = ["work", "modules", "seconds", "seconds per module", "relative error against float64"]
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


def extraction_benchmark() -> str:
    """The CPU time of extracting an adapter."""
    found = json.loads((RESULTS.parent / "extract.json").read_text(encoding="utf-8"))
    machine = ", ".join(f"{name}: {value}" for name, value in found["machine"].items())
    about = (
        f"`lora extract` of {found['what']} (the linear layers of SmolLM2-135M), with updates of full rank, by one "
        f"worker: `python benchmarks/extract_speed.py` on one machine ({machine})."
    )
    rows = [[row["decomposition"], _seconds(row["cpu_seconds"]), f"{row['error']:.10f}"] for row in found["rows"]]
    return f"{about}\n\n{table(['decomposition', 'CPU time', 'relative error'], rows)}"


def spectral_benchmark() -> str:
    """The table of merges of whole matrices, or how to produce it."""
    if not SPECTRAL.exists():
        return (
            "No results are stored in this checkout. `make bench-spectral` measures them, and `make fix` writes them."
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
    said = f"{said} {how}. The load average was {load:g} at the end."
    return f"{said}\n\n{table([*head, 'our error'], map(_spectral_row, found['rows']))}"


def _measured_how(row: Mapping[str, Any]) -> str:
    layers = f"{row['layers']} of {row['layers_in_all']} layers; times of other tools are extrapolated from one layer"
    return f"Threads: {row['threads']}, runs: {row['runs']}, {layers}"


def _spectral_row(row: Mapping[str, Any]) -> list[str]:
    times = [_seconds(row["their_s"]), _seconds(row["our_s"]), f"{row['ratio']:.2f}"]
    times += [_seconds(row["their_cpu_s"]), _seconds(row["our_cpu_s"]), f"{row['cpu_ratio']:.2f}"]
    errors = [f"{row[name]:.1e}" if name in row else NONE for name in ("their_error", "our_error")]
    return [f"`{row['work']}`", row["against"], *times, row["target"], *errors]


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


def search_benchmark() -> str:
    """The cost of a candidate of a search, or how to measure it."""
    if not SEARCH.exists():
        return "No results are stored in this checkout: `python benchmarks/search_speed.py --base MODEL` measures them."
    head = ["models", "searched", "merged in memory", "written and loaded", "ratio", "ratio of CPU time"]
    rows, machines = list[list[str]](), dict[str, None]()
    for name, found in json.loads(SEARCH.read_text(encoding="utf-8"))["shapes"].items():
        machines[", ".join(f"{key}: {value}" for key, value in found["machine"].items())] = None
        for row in found["rows"]:
            times = [_seconds(row["in_memory_s"]), _seconds(row["written_s"])]
            models = f"{name}, {found['experts']} experts"
            rows.append([models, row["work"], *times, f"{row['ratio']:.1f}", f"{row['cpu_ratio']:.1f}"])
    said = "Measured with `python benchmarks/search_speed.py --base MODEL`; medians. The target is 10."
    return f"{said}\n\n{table(head, rows)}\n\nMachine: {'; '.join(machines)}."


def fisher_accuracy() -> str:
    """The error of measured Fisher information against exact values."""
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
    "README.md": {"benchmark": rivals},
    "docs/benchmarks.md": {"benchmark": benchmark},
    "docs/gallery.md": {"gallery": gallery},
    "docs/adding-a-format.md": {"formats": formats_table},
    "docs/averaging-while-training.md": {"averages": averages_table},
    "docs/averaging.md": {"averages of adapters": suite_adapters},
    "docs/adapters.md": {"adapters": adapters_benchmark, "extraction": extraction_benchmark},
    "docs/choosing-a-method.md": {
        "methods": methods_table,
        "methods compared": methods_compared,
        "settings of methods": methods_settings,
        "departures of methods": methods_departures,
        "speed of methods": methods_speeds,
        "speed of decompositions": spectral_benchmark,
    },
    "docs/compatibility.md": {"reports": reports_table},
    "docs/cross-lingual-transfer.md": {"suite of languages": suite_of_languages},
    "docs/how-it-works.md": {"profile": profile_of_merges},
    "docs/learning.md": {"learners": learners_table, "memory of learning": memory_of_learning},
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
    "docs/searching.md": {"search benchmark": search_benchmark},
    "docs/sparse-soups.md": {"training recipes": training_table, "keys of training recipes": keys_of_training},
    "docs/statistics.md": {"statistics": statistics_table, "accuracy of Fisher information": fisher_accuracy},
    "docs/task-files.md": {"kinds of task": kinds_table, "keys of kinds": keys_of_kinds},
    "docs/what-merging-is-worth.md": {"suite of texts": suite_of_texts},
}

if __name__ == "__main__":
    main()
