"""Marks a test `torch` or `process` by the code that it runs, so that `make test-quick` can leave it out."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

TESTS = f"{Path(__file__).parent}{os.sep}"
EXAMPLES = Path(__file__).parent / "examples"
MARKS = {
    "torch": {"torch", "transformers", "optuna", "peft"},
    "process": {"subprocess", "multiprocessing", "ProcessPoolExecutor"},
}
_NEEDED = re.compile(r'^(\w+ = )?pytest\.importorskip\("(torch|transformers|mergekit|fusion_bench)"', re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no test needs torch, modules that skip without it are not even imported: torch takes half a minute."""
    module = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if "not torch" not in config.option.markexpr or module.suffix != ".py" or not module.exists():
        return None
    return bool(_NEEDED.search(module.read_text(encoding="utf-8"))) or None


def pytest_collection_modifyitems(items: list[Any]) -> None:
    items.sort(key=_may_be_stolen)
    for item in items:
        fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
        words = _words(frozenset(inspect.unwrap(function) for function in (item.obj, *fixtures)))
        if EXAMPLES in item.path.parents:
            item.add_marker(pytest.mark.slow)  # they train models
        for mark, causes in MARKS.items():
            if words & causes:
                item.add_marker(getattr(pytest.mark, mark))


def _may_be_stolen(item: Any) -> bool:
    """False for tests that share minutes of training: they come first, since workers steal from the end."""
    return EXAMPLES not in item.path.parents


@cache  # the cases of one test have the same functions
def _words(functions: frozenset[Any]) -> set[str]:
    """Names and strings in functions of the tests, and in the functions of the tests that these name."""
    words: set[str] = set()
    seen: set[Any] = set()
    waiting = [function for function in functions if _of_tests(function)]
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            named, callees = _read(function)
            words |= named
            waiting += callees
    return words


@cache
def _read(function: FunctionType) -> tuple[set[str], list[FunctionType]]:
    """Names and strings in a function, the names of modules behind them, and the test functions that it names."""
    words = set(_named(function.__code__))
    values = [function.__globals__[name] for name in words if name in function.__globals__]
    callees = [inspect.unwrap(value) for value in values if callable(value)]
    # The names of modules: `import torch`, `np = pytest.importorskip("numpy")`.
    return words | {value.__name__ for value in values if inspect.ismodule(value)}, list(filter(_of_tests, callees))


def _of_tests(function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__code__.co_filename.startswith(TESTS)


def _named(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _named(constant)
