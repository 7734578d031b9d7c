"""CONTRIBUTING's limits on length hold, but for a list of exceptions that only shrinks."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXCEPTIONS = Path(__file__).with_name("too_long.txt")
LONGEST_FUNCTION, LONGEST_MODULE = 25, 300


def test_functions_and_modules_are_short():
    allowed = exceptions()
    longer = {name: lines for name, lines in too_long().items() if lines > allowed[name]}
    assert not longer, (
        f"split these (at most {LONGEST_FUNCTION} lines per function, {LONGEST_MODULE} per module): {longer}"
    )


@pytest.mark.slow
def test_exceptions_are_removed_once_they_are_mended():
    now = too_long()
    mended = {name: lines for name, lines in exceptions().items() if now[name] < lines}
    assert not mended, f"shorter now; `python tests/test_style.py` writes {EXCEPTIONS.name} again: {mended}"


def exceptions() -> Counter[str]:
    listed = [line.split() for line in lines(EXCEPTIONS) if not line.startswith("#")]
    return Counter({name: int(length) for name, length in listed})


def too_long() -> Counter[str]:
    """Lines of functions that are too long, docstrings apart, as `path:function`, and of modules, as `path`."""
    found: Counter[str] = Counter()
    for path in sorted((ROOT / "src" / "polyak").rglob("*.py")):
        place = path.relative_to(ROOT / "src").as_posix()
        if (length := len(lines(path))) > LONGEST_MODULE:
            found[place] = length
        for name, node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if (length := code_lines(node)) > LONGEST_FUNCTION:
                found[f"{place}:{name}"] = length
    return found


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{prefix}{node.name}" if named else prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, node
        yield from functions(node, f"{name}." if named else prefix)


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0
    return node.end_lineno - node.lineno + 1 - docstring


if __name__ == "__main__":
    comments = [line for line in lines(EXCEPTIONS) if line.startswith("#")]
    listed = [f"{name} {length}" for name, length in sorted(too_long().items())]
    EXCEPTIONS.write_text("\n".join([*comments, *listed]) + "\n", encoding="utf-8")
