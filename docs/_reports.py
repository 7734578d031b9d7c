"""The table of public reports, from the marks of the tests that rebuild them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from _methods import ROOT, table

TESTS = ROOT / "tests" / "compatibility"


def reports_table() -> str:
    """One row per report; its test's name leads to the input and the assertions."""
    rows = [
        [f"[{mark['source']}]({_address(mark['source'])})", mark["what"], mark["versions"], mark["result"], test]
        for mark, test in sorted(marked_tests(), key=lambda found: _order(found[0]["source"]))
    ]
    head = ["report", "situation", "made with", "what polyak does", "test"]
    return f"{len(rows)} reports.\n\n{table(head, rows)}"


def marked_tests() -> Iterator[tuple[dict[str, str], str]]:
    """The marks of `tests.compatibility.reported` and the tests that have them."""
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "reported":
                    facts = {str(keyword.arg): str(ast.literal_eval(keyword.value)) for keyword in mark.keywords}
                    source = str(ast.literal_eval(mark.args[0]))
                    yield {"source": source, **facts}, f"`{path.stem}.py`: `{getattr(node, 'name', '')}`"


def _address(source: str) -> str:
    repository, _, number = source.partition("#")
    return f"https://github.com/{repository}/issues/{number}"


def _order(source: str) -> tuple[str, int]:
    repository, _, number = source.partition("#")
    return repository.lower(), int(number)
