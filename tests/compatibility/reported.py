"""Mark tests by the public report whose situation they rebuild."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


def reported(source: str, *, what: str, versions: str, result: str) -> Callable[[Test], Test]:
    """Mark a test as the situation of a public report: docs/compatibility.md lists it.

    The page is generated from the source, so all arguments must be literals.

    Args:
        source: Repository and number of the thread, such as "arcee-ai/mergekit#386".
        what: The situation and what went wrong in the reporter's tool, in one sentence.
        versions: Versions of the libraries with which the input was made here, or "files only" if written by hand.
        result: What polyak does: the right value and what it is compared with, or the refusal and its remedy.
    """

    def mark(test: Test) -> Test:
        return test

    return mark
