"""The generated parts of pages that show the results of a suite."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from _methods import NONE, ROOT, table

SUITE_ADAPTERS = ROOT / "benchmarks" / "suite_adapters.json"
SUITE_TEXT = ROOT / "benchmarks" / "suite_text.json"
SUITE_LANGUAGES = ROOT / "benchmarks" / "suite_languages.json"
LEARN_MEMORY = ROOT / "benchmarks" / "learn_memory.json"
PROFILE = ROOT / "benchmarks" / "profile.json"


def suite_adapters() -> str:
    """The losses of averages of a LoRA run's checkpoints, or how to measure them."""
    if not SUITE_ADAPTERS.exists():
        return "No results are stored in this checkout: `make suite-adapters` measures them."
    found = json.loads(SUITE_ADAPTERS.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    rows = [row for pair in _SUITE_ROWS for row in _suite_rows(*(found["selected"][name] for name in pair), pair[0])]
    seen = {row[0]: row for row in reversed(rows)}
    head = ["strategy", "model", "loss", "minus the last", "minus the uniform average"]
    (checkpoints,) = found["selected"]["against last"]["checkpoints"].values()
    losses = ", ".join(f"{value:.4f}" for value in checkpoints.values())
    again = ", reusing models and scores of an earlier run" if found["used_again"] else ", training included"
    said = (
        f"`make suite-adapters`: one run, seed {found['seed']}; {found['examples']['test']} test examples; {machine}. "
        f"It took {found['seconds'] / 60:.0f} minutes{again}."
    )
    more = (
        f"Test losses of the checkpoints, in order: {losses}. The uniform average of the factors differs from that of "
        f"the products by {found['error_of_factors']:.2g} of its norm."
    )
    return "\n\n".join([said, table(head, [seen[name] for name in dict.fromkeys(row[0] for row in rows)]), more])


_SUITE_ROWS = (
    ("against last", "against average"),
    ("by step", "by step, against average"),
    ("of the last five", "of the last five"),
)


def _suite_rows(last: Mapping[str, Any], average: Mapping[str, Any], what: str) -> Iterable[list[str]]:
    (ours,), (theirs,) = last["comparison"]["tasks"], average["comparison"]["tasks"]
    for name, one in ours["results"].items():
        called = "average of the last five" if (what, name) == ("of the last five", "average") else name
        other = {} if ours is theirs or last is average else theirs["results"][name]
        which = last["chosen"][ours["task"]][name]
        yield [called, which, f"{one['score']['value']:.4f}", _moved(one), _moved(other)]


def _moved(one: Mapping[str, Any]) -> str:
    found = one.get("difference")
    return NONE if found is None else f"{found['value']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def suite_of_texts() -> str:
    """The table of the suite and the verdicts on the papers' claims, or how to produce them."""
    if not SUITE_TEXT.exists():
        return "No results are stored in this checkout. `make suite-text` measures them and writes them here."
    found, suite = json.loads(SUITE_TEXT.read_text(encoding="utf-8")), _module(ROOT / "examples/suite_text/results.py")
    rows = [suite.cells(row, found["tasks"]) for row in found["rows"]]
    effects = [[one["claim"], suite.between(one["difference"]), suite.verdict(one)] for one in found["effects"]]
    claims = table(["claim", "points of mean accuracy, with 95 % interval", ""], effects)
    parts = [" ".join(suite.notes(found)), table(["", *found["tasks"], *suite.HEAD], rows), "## Claims", claims]
    return "\n\n".join(parts)


def suite_of_languages() -> str:
    """The verdicts on the claims of checkpoint averaging, or how to produce them."""
    if not SUITE_LANGUAGES.exists():
        return "No results are stored in this checkout. `make suite-languages` measures them and writes them here."
    found = json.loads(SUITE_LANGUAGES.read_text(encoding="utf-8"))
    plan, machine = found["plan"], ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    parts = [
        f"`{found['command']}`: {plan['seeds']} seeds, learning rates {', '.join(map(str, plan['rates']))}, "
        f"{plan['epochs']:g} epochs; 95 % Student intervals over seeds, paired. {machine}."
    ]
    for name, task in found["tasks"].items():
        rows = [[one["claim"], _between(one), one["verdict"]] for one in task["claims"]]
        languages = ", ".join(plan["sets"][name])
        parts += [f"{name}, from English to {languages}:", table(["claim", "difference, in points", ""], rows)]
    return "\n\n".join(parts)


def _between(one: Mapping[str, Any]) -> str:
    value, low, high = (100 * one[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def memory_of_learning() -> str:
    """The memory of learning with few and with many models, or how to measure it."""
    command = "`python benchmarks/learn_memory.py`"
    if not LEARN_MEMORY.exists():
        return f"No results are stored in this checkout: {command} measures them, where FusionBench is installed."
    found = json.loads(LEARN_MEMORY.read_text(encoding="utf-8"))
    peaks: dict[str, dict[int, int]] = {}
    for row in found["rows"]:
        peaks.setdefault(row["work"], {})[row["experts"]] = row["bytes"]
    few, *_, many = sorted({row["experts"] for row in found["rows"]})
    theirs = peaks["FusionBench AdaMerging"]
    rows = [
        [work, *(f"{each[n] / 1e6:.0f} MB" for n in (few, many)), f"{each[many] / each[few] - 1:+.1%}",
         *(f"{theirs[n] / each[n]:.1f}" for n in (few, many))]
        for work, each in peaks.items()
    ]  # fmt: skip
    head = ["", f"{few} models", f"{many} models", "growth", f"FusionBench's, {few} models", f"{many} models"]
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    return (
        "Peak memory beyond that of the process before models are opened, for models of "
        f"{found['model_bytes'] / 1e6:.0f} MB in float32; the last two columns are FusionBench's "
        f"AdaMerging relative to the row. {command}: {machine}.\n\n{table(head, rows)}"
    )


def profile_of_merges() -> str:
    """The time of each part of some merges, or how to measure it."""
    command = "`python benchmarks/merge_profile.py --keep benchmarks/profile.json --method METHOD`"
    if not PROFILE.exists():
        return f"No profiles are stored in this checkout: {command} makes one."
    found = json.loads(PROFILE.read_text(encoding="utf-8"))
    merges = found["merges"]
    parts = sorted({part for merge in merges.values() for part in merge["parts"]})
    rows = [[part, *(_seconds(merge["parts"].get(part)) for merge in merges.values())] for part in parts]
    total = [f"{sum(one['cpu'] for one in merge['parts'].values()):.2f}" for merge in merges.values()]
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    return (
        "Seconds of CPU time over all threads, wall time in brackets where it differs; "
        f"{found['shape']}, by {command}: {machine}.\n\n{table(['part', *merges], [*rows, ['all CPU time', *total]])}"
    )


def _seconds(part: Mapping[str, float] | None) -> str:
    if part is None:
        return NONE
    cpu, wall = f"{part['cpu']:.2f}", f"{part['wall']:.2f}"
    return cpu if cpu == wall else f"{cpu} ({wall})"


def _module(path: Path) -> Any:
    """A module from its file: this script is run from anywhere."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
