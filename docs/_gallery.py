"""The gallery: the recipes of `examples/recipes`, with what the committed results say of their methods."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from _methods import ROOT

from polyak import recipe

RECIPES = ROOT / "examples" / "recipes"
SUITE_TEXT = ROOT / "benchmarks" / "suite_text.json"


def gallery() -> str:
    """Every recipe: its title, what it does and when to use it, the file, and a measured result where there is one."""
    measured = _measured()
    return "\n\n".join(_entry(path.name, path.read_text(encoding="utf-8"), measured) for path in _recipes())


def _recipes() -> list[Any]:
    """Simple ones first: by length of the file."""
    return sorted(RECIPES.glob("*.yaml"), key=lambda path: (len(path.read_text(encoding="utf-8")), path.name))


def _entry(name: str, text: str, measured: Mapping[str, str]) -> str:
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    title, _, about = " ".join(line.lstrip("# ") for line in lines[:end]).partition(": ")
    about, _, use = (about[0].upper() + about[1:]).partition(" Use it ")
    body = "\n".join(lines[end:]).strip()
    method = recipe.load(RECIPES / name).method
    result = measured.get(method, "not part of the committed results.")
    return "\n\n".join(
        [
            f"## {title}",
            about,
            f"**When to use it**: {use}",
            f"`examples/recipes/{name}`:",
            f"```yaml\n{body}\n```",
            f"**Measured**: {result}",
        ]
    )


def _measured() -> dict[str, str]:
    """By method: the row of the suite of texts that merges by it alone."""
    if not SUITE_TEXT.exists():
        return {}
    found = json.loads(SUITE_TEXT.read_text(encoding="utf-8"))
    results = {row["name"]: row for row in found["rows"]}
    return {
        row.method: _result(row, results[row.name], len(found["tasks"]))
        for row in reversed(_rows())
        if row.name in results and not (row.learner or row.is_searched or row.irrelevant)
    }


def _rows() -> tuple[Any, ...]:
    sys.path.insert(0, str(ROOT))
    try:
        from examples.suite_text.rows import Effort, rows
    finally:
        sys.path.remove(str(ROOT))
    return rows(Effort())


def _result(row: Any, result: Mapping[str, Any], tasks: int) -> str:
    value, low, high = (f"{100 * share:.1f}" for share in result["normalised"])
    settings = ", ".join(f"`{name}: {value}`" for name, value in row.settings.items()) or "default settings"
    return (
        f"`{row.method}` with {settings} reaches {value} % [{low}, {high}] of the experts' accuracy on {tasks} tasks "
        "([What merging is worth](what-merging-is-worth.md))."
    )
