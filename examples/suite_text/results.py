"""What the suite found, as JSON, as text and as a page."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from polyak.display import table as as_html
from polyak.report import document

HEAD = ("mean", "normalised", "over seeds", "seconds", "peak MB", "data")
POINT = 0.01  # of accuracy
TITLE = "Eight fine-tunes of all-MiniLM-L6-v2, merged"


def cells(row: Mapping[str, Any], tasks: Sequence[str]) -> list[str]:
    """A row of the table: what it is, the tasks, then `HEAD`."""
    each = [f"{100 * row['tasks'][task]:.1f}" for task in tasks]
    low, high = 100 * min(row["seeds"]), 100 * max(row["seeds"])
    apart = f"{low:.1f} to {high:.1f} ({len(row['seeds'])})" if len(row["seeds"]) > 1 else "–"
    cost = [f"{row['seconds']:.0f}", f"{row['peak'] / 1e6:.0f}"] if row["seconds"] else ["–", "–"]
    return [row["name"], *each, f"{100 * row['mean'][0]:.1f}", between(row["normalised"]), apart, *cost, row["data"]]


def between(found: Sequence[float | None]) -> str:
    """A share and its interval, in per cent."""
    if None in found:
        return "–"
    value, low, high = (100 * (share or 0.0) for share in found)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def verdict(effect: Mapping[str, Any]) -> str:
    """What an effect says of its claim."""
    value, low, high = effect["difference"]
    if "for comparison" in effect["claim"]:
        return ""
    if "less than 1 point" in effect["claim"]:
        sure = low > -POINT and high < POINT
        return "holds" if sure else "holds for these texts" if abs(value) < POINT else "does not hold"
    if "can be dropped" in effect["claim"]:
        return "holds" if low > -POINT else "does not hold" if high < 0 else "undecided"
    return "holds" if low > 0 else "the opposite holds" if high < 0 else "undecided"


def text(results: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    lines = [["", *results["tasks"], *HEAD], *(cells(row, results["tasks"]) for row in results["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def write(results: Mapping[str, Any], place: Path, page: Path) -> None:
    """Keep the results, and a page of them that needs nothing but itself."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(_page(results), encoding="utf-8")


def machine() -> dict[str, str]:
    """What is measured on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "python": platform.python_version()}


def _page(results: Mapping[str, Any]) -> str:
    table = as_html(["", *results["tasks"], *HEAD], (cells(row, results["tasks"]) for row in results["rows"]))
    effects = as_html(
        ["claim", "points of mean accuracy", ""],
        ([one["claim"], between(one["difference"]), verdict(one)] for one in results["effects"]),
    )
    said = "".join(f"<li>{escape(line)}</li>" for line in notes(results))
    return document(TITLE, f"<h1>{TITLE}</h1><ul>{said}</ul>{_plot(results['rows'])}{table}<h2>Claims</h2>{effects}")


def notes(results: Mapping[str, Any]) -> list[str]:
    """How it was measured, in sentences."""
    draws, machine = results["draws"], ", ".join(f"{key}: {value}" for key, value in results["machine"].items())
    found = [
        f"Accuracy in per cent on the first {draws['tests']} texts of each test file.",
        "Normalised: each accuracy divided by that of the task's own expert, averaged over the tasks; with a 95 % "
        "interval over test texts and seeds.",
        f"Rows that use data were computed {results['seeds']} times, each time with {draws['calibration']} different "
        f"calibration texts and {draws['validation']} different validation texts per task.",
        "Seconds are CPU time; memory is the peak of the whole process, including torch and leftovers of earlier rows "
        f"({machine}). All rows took {_minutes(results['rows']):.0f} minutes of CPU time, without training.",
    ]
    return found + ([f"Not measured yet: {', '.join(results['missing'])}."] if results["missing"] else [])


def _minutes(rows: Sequence[Mapping[str, Any]]) -> float:
    return sum(row["seconds"] * len(row["seeds"]) for row in rows) / 60


def _plot(rows: Sequence[Mapping[str, Any]]) -> str:
    height = 24 * len(rows)
    lines = "".join(_bar(row, 24 * i) for i, row in enumerate(rows))
    label = "Normalised mean of each row, with its interval"
    return f"<figure class=wide><svg viewBox='0 0 760 {height}' role=img aria-label='{label}'>{lines}</svg></figure>"


def _bar(row: Mapping[str, Any], y: int) -> str:
    if None in row["normalised"]:
        return ""
    value, low, high = (250 + 450 * share for share in row["normalised"])
    return (
        f"<text x=240 y='{y + 16}' text-anchor=end>{escape(row['name'])}</text>"
        f"<rect x=250 y='{y + 4}' width='{value - 250:.1f}' height=16 style='fill: var(--fill)'/>"
        f"<line x1='{low:.1f}' x2='{high:.1f}' y1='{y + 12}' y2='{y + 12}' style='stroke: var(--ink)'/>"
        f"<text x='{high + 6:.1f}' y='{y + 16}'>{100 * row['normalised'][0]:.1f}</text>"
    )
