"""Contract tests for merge methods.  Public: authors of methods run these checks on their own.

from polyak.testing import check_method
check_method(my_method)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

from ..errors import SettingError, suggestion
from ..methods import Method
from . import _checks, _declaration, _kernel_checks
from ._asserts import assert_close as assert_close
from ._asserts import assert_refused as assert_refused
from ._asserts import assert_that as assert_that
from ._check import Case as Case
from ._check import Check as Check
from ._check import check as check
from ._laws import LAWS as LAWS
from ._problems import Problem as Problem
from ._problems import sample as sample
from ._settings import choices as choices
from ._settings import uneven as uneven


def checks_for(method: Method) -> Iterator[Check]:
    """The universal checks, then one for each law that `method` claims."""
    for module in (_declaration, _checks, _kernel_checks):
        yield from (value for value in vars(module).values() if isinstance(value, Check))
    yield from (of_law for law, of_law in LAWS.items() if law in method.laws)


def check_method(method: Method, *, seed: int = 0, only: str | None = None, skip: Collection[str] = ()) -> None:
    """Run every check that applies.

    Args:
        method: The method.
        seed: Seed of the random numbers; other seeds try other combinations of words, settings and inputs.
        only: The name of a check to run alone (default: all run).
        skip: Names of checks to leave out.

    Raises:
        AssertionError: the first check that fails, with the case, the difference, the remedy and how to reproduce it.
        SettingError: no check that applies has this name.
    """
    checks = {applies.name: applies for applies in checks_for(method)}
    for name in (*skip, *([only] if only else [])):
        if name not in checks:
            raise SettingError(f"method {method.name!r} has no check {name!r}. {suggestion(name, checks)}")
    for name, applies in checks.items():
        if name not in skip and only in (None, name):
            applies(method, seed)


def parametrize_with_checks(
    methods: Iterable[Method], *, seed: int = 0, skip: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make pytest run a test once for every check of every method: a function of `check`, which calls `check()`.

    Args:
        methods: The methods.
        seed: Seed of the random numbers.
        skip: Names of checks to leave out.
    """
    import pytest

    cases = [
        pytest.param(partial(applies, method, seed), id=f"{method.name}-{applies.name}")
        for method in methods
        for applies in checks_for(method)
        if applies.name not in skip
    ]
    return pytest.mark.parametrize("check", cases)
