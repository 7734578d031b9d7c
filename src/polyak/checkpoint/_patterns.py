"""Regular expressions of strangers, matched in bounded time.

Python's own matcher can take exponential time on patterns such as `(a+)+b`, and cannot be interrupted.  This one
follows all ways through a pattern at once: for a text of n characters it takes O(nodes n^2) steps.  It knows what
patterns of names are made of: characters, sets, alternatives, groups, repetitions and the two anchors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

# The standard library's own parser, which has no public name.
code: Any = import_module("re._constants")
parser: Any = import_module("re._parser")

LONGEST = 500  # characters of a pattern
STEPS = 100_000  # places tried; a pattern of names takes hundreds
_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    code.CATEGORY_DIGIT: str.isdecimal,
    code.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    code.CATEGORY_SPACE: str.isspace,
    code.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    code.CATEGORY_WORD: lambda c: c == "_" or c.isalnum(),
    code.CATEGORY_NOT_WORD: lambda c: not (c == "_" or c.isalnum()),
}


class Pattern:
    """A regular expression that can be matched against whole texts.

    Raises:
        ValueError: it is none, too long, or holds what is not known here (look-around, references, flags).
    """

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters; at most {LONGEST} are read")
        try:
            found = parser.parse(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(str(error)) from None
        if found.state.flags & ~_UNICODE:
            raise ValueError("it sets flags")
        self._nodes = list(found)
        _check(self._nodes)

    def matches_end(self, text: str) -> bool:
        """Whether a part of the text from its beginning, or from behind a dot, to its end matches.

        Raises:
            ValueError: it takes too many steps.
        """
        starts = [0, *(i + 1 for i, c in enumerate(text) if c == ".")]
        walk = _Walk(text)
        return any(len(text) in walk.sequence(self._nodes, {start}) for start in starts)


class _Walk:
    """Where each node of a pattern can end, for each place in a text where it can begin."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._known: dict[tuple[int, int], frozenset[int]] = {}
        self._steps = 0

    def sequence(self, nodes: Iterable[Any], starts: set[int]) -> set[int]:
        for node in nodes:
            self._steps += 1 + len(starts)
            if self._steps > STEPS:
                raise ValueError(f"it takes more than {STEPS} steps to match {self._text[:80]!r}")
            starts = {end for start in starts for end in self._ends(node, start)}
        return starts

    def _ends(self, node: Any, start: int) -> frozenset[int]:
        key = id(node), start
        if key not in self._known:
            self._known[key] = frozenset(self._find(node, start))
        return self._known[key]

    def _find(self, node: Any, start: int) -> Iterable[int]:
        kind, argument = node
        if kind is code.SUBPATTERN:
            return self.sequence(argument[3], {start})
        if kind is code.BRANCH:
            return {end for branch in argument[1] for end in self.sequence(branch, {start})}
        if kind in (code.MAX_REPEAT, code.MIN_REPEAT):
            return self._repeated(argument, start)
        if kind is code.AT:
            return {start} if start == (0 if argument in _BEGINNINGS else len(self._text)) else ()
        fits = start < len(self._text) and _fits(node, self._text[start])
        return {start + 1} if fits else ()

    def _repeated(self, argument: Any, start: int) -> set[int]:
        least, most, nodes = argument
        beyond = len(self._text) + 1  # more rounds than that reach nothing new
        reached = {start}
        for _ in range(min(least, beyond)):
            reached = self.sequence(nodes, reached)
        fresh, rounds = set(reached), min(most, beyond) - min(least, beyond)
        while fresh and rounds > 0:
            fresh = self.sequence(nodes, fresh) - reached
            reached |= fresh
            rounds -= 1
        return reached


def _fits(node: Any, character: str) -> bool:
    """Whether a node of one character takes this one."""
    kind, argument = node
    if kind is code.LITERAL:
        return ord(character) == argument
    if kind is code.NOT_LITERAL:
        return ord(character) != argument
    if kind is code.ANY:
        return character != "\n"
    if kind is code.RANGE:
        return argument[0] <= ord(character) <= argument[1]
    if kind is code.CATEGORY:
        return _CATEGORIES[argument](character)
    negated = argument[0][0] is code.NEGATE
    return any(_fits(one, character) for one in argument[negated:]) is not negated


_UNICODE = 32
_BEGINNINGS = (code.AT_BEGINNING, code.AT_BEGINNING_STRING)
_ANCHORS = (*_BEGINNINGS, code.AT_END, code.AT_END_STRING)
_CHARACTERS = (code.LITERAL, code.NOT_LITERAL, code.ANY, code.RANGE, code.CATEGORY, code.NEGATE)


def _check(nodes: Iterable[Any]) -> None:
    """Refuse what `_Walk` does not know."""
    for kind, argument in nodes:
        if kind is code.SUBPATTERN:
            if argument[1] or argument[2]:
                raise ValueError("it sets flags")
            _check(argument[3])
        elif kind is code.BRANCH:
            for branch in argument[1]:
                _check(branch)
        elif kind in (code.MAX_REPEAT, code.MIN_REPEAT):
            _check(argument[2])
        elif kind is code.IN:
            _check(argument)
        elif kind not in _CHARACTERS and not (kind is code.AT and argument in _ANCHORS):
            raise ValueError(f"it holds {str(kind).lower()}, which patterns of names have no need of")
