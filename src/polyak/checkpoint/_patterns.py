"""Untrusted regular expressions, matched in bounded time.

Python's matcher backtracks: patterns such as `(a+)+b` take exponential time, and it cannot be interrupted. Here the
structure of a pattern (alternatives, groups, repetitions, anchors) is evaluated over sets of positions, in time that is
polynomial in the length of the text and limited to `STEPS` positions; `re` only matches single characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from ..reading import problem_with_pattern

LONGEST = 500  # characters of a pattern
DEEPEST = 50  # nesting depth of groups
STEPS = 100_000  # positions visited; a pattern of module names takes hundreds

_TOKEN = re.compile(
    r"""(?P<atom> \\[dDsSwW] | \\[^0-9A-Za-z] | \[\^?\]?(?:\\.|[^]\\])*\] | [^\\()|^$*+?{[] )
    | (?P<anchor> \^ | \$ | \\A | \\Z )
    | (?P<repeat> [*+?] | \{[0-9]+\} | \{[0-9]*,[0-9]*\} ) \??
    | (?P<open> \((?:\?:)?(?!\?) ) | (?P<close> \) ) | (?P<or> \| )
    | (?P<brace> \{ )""",
    re.VERBOSE | re.DOTALL,
)


class Atom(NamedTuple):
    """Any one character that a pattern matches."""

    takes: re.Pattern[str]


class Anchor(NamedTuple):
    """Beginning or end of the text."""

    at_end: bool


class Group(NamedTuple):
    """Alternative sequences."""

    branches: list[list[Node]]


class Repeat(NamedTuple):
    """A node repeated from `least` to `most` times; `most` is None if there is no limit."""

    node: Node
    least: int
    most: int | None


Node: TypeAlias = Atom | Anchor | Group | Repeat


class Pattern:
    r"""A regular expression that can be matched against whole texts.

    Raises:
        ValueError: it is invalid, too long or too deep, or uses look-around, references, flags, named groups,
            possessive repetitions or escapes of letters other than `\d \s \w \A \Z` and their opposites.
    """

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters; at most {LONGEST} are read")
        if problem := problem_with_pattern(text):
            raise ValueError(f"it is not a valid regular expression ({problem})")
        self._root = _parsed(text)

    def matches_end(self, text: str) -> bool:
        """Test whether the pattern matches the whole text, or the whole of what follows one of its dots.

        Raises:
            ValueError: it takes too many steps.
        """
        starts = [0, *(i + 1 for i, c in enumerate(text) if c == ".")]
        walk = _Walk(text)
        return any(len(text) in walk.ends(self._root, start) for start in starts)


def _parsed(text: str) -> Group:
    """Parse a pattern that `re` accepts."""
    opened = [Group([[]])]
    for token in _tokens(text):
        sequence = opened[-1].branches[-1]
        if token.lastgroup == "open":
            opened.append(Group([[]]))
            if len(opened) > DEEPEST:
                raise ValueError(f"its groups are nested more than {DEEPEST} levels deep")
        elif token.lastgroup == "close":
            opened[-2].branches[-1].append(opened.pop())
        elif token.lastgroup == "or":
            opened[-1].branches.append([])
        elif token.lastgroup == "repeat":
            sequence.append(Repeat(sequence.pop(), *_bounds(token["repeat"])))
        else:
            sequence.append(_single(token.lastgroup, token.group()))
    return opened[0]


def _tokens(text: str) -> Iterable[re.Match[str]]:
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or (token["repeat"] and text.startswith("+", token.end())):
            raise ValueError(f"{text[position : position + 4]!r} is not supported in patterns of module names")
        yield token
        position = token.end()


def _single(kind: str | None, written: str) -> Atom | Anchor:
    if kind == "anchor":
        return Anchor(at_end=written in ("$", r"\Z"))
    return Atom(re.compile(re.escape(written) if kind == "brace" else written))


def _bounds(written: str) -> tuple[int, int | None]:
    if not written.startswith("{"):
        return int(written == "+"), 1 if written == "?" else None
    least, comma, most = written[1:-1].partition(",")
    return int(least or 0), int(most) if most else None if comma else int(least)


class _Walk:
    """Positions in a text at which each node of a pattern can end, per position at which it begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: dict[tuple[int, int], frozenset[int]] = {}
        self._steps = 0

    def ends(self, node: Node, start: int) -> frozenset[int]:
        key = id(node), start
        if key not in self._ends:
            self._ends[key] = frozenset(self._find(node, start))
        return self._ends[key]

    def _after(self, nodes: Iterable[Node], starts: set[int]) -> set[int]:
        for node in nodes:
            self._count(1)
            reached = set[int]()
            for start in starts:
                ends = self.ends(node, start)
                self._count(1 + len(ends))
                reached |= ends
            starts = reached
        return starts

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS:
            raise ValueError(f"it takes more than {STEPS} steps to match {self._text[:80]!r}")

    def _find(self, node: Node, start: int) -> Iterable[int]:
        if isinstance(node, Group):
            return {end for branch in node.branches for end in self._after(branch, {start})}
        if isinstance(node, Repeat):
            return self._repeated(node, start)
        if isinstance(node, Anchor):
            return {start} if start == (len(self._text) if node.at_end else 0) else ()
        return {start + 1} if node.takes.fullmatch(self._text, start, start + 1) else ()

    def _repeated(self, repeat: Repeat, start: int) -> set[int]:
        beyond = len(self._text) + 1  # more rounds reach nothing new
        least, most = (min(beyond if bound is None else bound, beyond) for bound in (repeat.least, repeat.most))
        reached = {start}
        for _ in range(least):
            reached = self._after([repeat.node], reached)
        fresh, rounds = set(reached), most - least
        while fresh and rounds > 0:
            fresh = self._after([repeat.node], fresh) - reached
            reached |= fresh
            rounds -= 1
        return reached
