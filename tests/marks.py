"""Marks a test `torch` or `process` by the code that it runs, so that `make test-quick` can leave it out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

TESTS = Path(__file__).parent
MARKS = {
    "torch": {"torch", "transformers", "optuna", "peft"},
    "process": {"subprocess", "multiprocessing", "ProcessPoolExecutor"},
}
_NEEDED = re.compile(r'^(\w+ = )?pytest\.importorskip\("(torch|transformers|mergekit|fusion_bench)"', re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no test needs torch, modules that skip without it are not even imported: torch takes half a minute."""
    if "not torch" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return bool(_NEEDED.search(collection_path.read_text(encoding="utf-8"))) or None


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
        words = _words([item.obj, *fixtures])
        for mark, causes in MARKS.items():
            if words & causes:
                item.add_marker(getattr(pytest.mark, mark))


def _words(functions: list[Any]) -> set[str]:
    """Names and strings in functions of the tests, and in the functions of the tests that these name."""
    words: set[str] = set()
    seen: set[Any] = set()
    waiting = [inspect.unwrap(function) for function in functions]
    while waiting:
        function = waiting.pop()
        if function in seen or not _of_tests(function):
            continue
        seen.add(function)
        named = set(_named(function.__code__))
        words |= named
        waiting += [inspect.unwrap(each) for name in named if callable(each := function.__globals__.get(name))]
        # The names of modules: `import torch`, `np = pytest.importorskip("numpy")`.
        words |= {each.__name__ for name in named if inspect.ismodule(each := function.__globals__.get(name))}
    return words


def _of_tests(function: Any) -> bool:
    return isinstance(function, FunctionType) and Path(function.__code__.co_filename).is_relative_to(TESTS)


def _named(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _named(constant)
