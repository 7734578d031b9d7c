"""The gallery: the recipes of `examples/recipes`, with the committed results of their methods."""

from __future__ import annotations

import json
import sys
from typing import Any

from _methods import ROOT

RECIPES = ROOT / "examples" / "recipes"
SUITE_TEXT = ROOT / "benchmarks" / "suite_text.json"
RESULT = "# Result: "


def gallery() -> str:
    """Every recipe: its title, its purpose, the file, and a measured result if there is one."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in RECIPES.glob("*.yaml")}
    order = sorted(texts, key=lambda name: (RESULT not in texts[name], len(texts[name]), name))
    return "\n\n".join(_entry(name, texts[name]) for name in order)


def _entry(name: str, text: str) -> str:
    """A recipe begins with a comment `TITLE: what it does. Use it ...` and an optional line `Result: ROW OF SUITE`."""
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    comment, _, row = "\n".join(line.removeprefix("# ") for line in lines[:end]).partition("Result: ")
    title, _, about = " ".join(comment.split()).partition(": ")
    about, _, use = (about[0].upper() + about[1:]).partition(" Use it ")
    body = "\n".join(lines[end:]).strip()
    parts = [f"## {title}", about, f"**When to use it**: {use}", f"`examples/recipes/{name}`:", f"```yaml\n{body}\n```"]
    return "\n\n".join([*parts, f"**Measured**: {_result(row) if row else 'not part of the committed results.'}"])


def _result(name: str) -> str:
    """The result of a row of the suite of texts, with the settings that it used."""
    found = json.loads(SUITE_TEXT.read_text(encoding="utf-8"))
    (row,) = (row for row in _rows() if row.name == name)
    (result,) = (result for result in found["rows"] if result["name"] == name)
    value, low, high = (f"{100 * share:.1f}" for share in result["normalised"])
    settings = ", ".join(f"`{key}: {value}`" for key, value in row.settings.items()) or "default settings"
    return (
        f"`{row.method}` with {settings} reaches {value} % [{low}, {high}] of the experts' accuracy on "
        f"{len(found['tasks'])} tasks ([What merging is worth](what-merging-is-worth.md))."
    )


def _rows() -> tuple[Any, ...]:
    sys.path.insert(0, str(ROOT))
    try:
        from examples.suite_text.rows import Effort, rows
    finally:
        sys.path.remove(str(ROOT))
    return rows(Effort())
