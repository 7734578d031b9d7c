"""The structure of a regular expression: alternatives, groups, repetitions, single characters and assertions."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

DEEPEST = 50  # nesting depth of groups

_TOKEN = re.compile(
    r"""(?P<assertion> \^ | \$ | \\[AZbB] )
    | (?P<atom> \\(?:x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | N\{[^}]*\} | 0[0-7]{0,2} | [0-3][0-7]{2}
                     | [dDsSwWafnrtv] | [^0-9A-Za-z])
              | \[\^?\]?(?:\\.|[^]\\])*\] | [^\\()|^$*+?{[] )
    | (?P<repeat> [*+?] | \{[0-9]+\} | \{[0-9]*,[0-9]*\} ) \??
    | (?P<comment> \(\?\#[^)]*\) )
    | (?P<flags> \(\?(?P<globally>[imsu]+)\) )
    | (?P<open> \( (?: \? (?P<on>[imsu]*) (?:-(?P<off>[ims]+))? : | \?P<\w+> | (?P<look> \?<?[=!] ) | (?!\?) ) )
    | (?P<close> \) ) | (?P<or> \| )
    | (?P<brace> \{ )""",
    re.VERBOSE | re.DOTALL,
)


class Atom(NamedTuple):
    """Any one character that a pattern matches."""

    takes: re.Pattern[str]


class Assertion(NamedTuple):
    """A condition on the position: `^`, `$`, `A`, `Z`, `b`, `B`, with the flag `m` of multi-line mode before it."""

    kind: str


@dataclass(frozen=True, eq=False)
class Look:
    """A condition on what follows, or comes before, the position."""

    group: Group
    ahead: bool
    positive: bool


class Group(NamedTuple):
    """Alternative sequences."""

    branches: list[list[Node]]


class Repeat(NamedTuple):
    """A node repeated from `least` to `most` times; `most` is None if there is no limit."""

    node: Node
    least: int
    most: int | None


Node: TypeAlias = Atom | Assertion | Look | Group | Repeat


def parsed(text: str) -> Group:
    """Parse a pattern.

    Raises:
        ValueError: `re` refuses it, or it cannot be matched without backtracking.
    """
    _check(text)
    root = _Open(frozenset(), None)
    opened, position = [root], 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or (token["repeat"] and text.startswith("+", token.end())):
            raise ValueError(f"{text[position : position + 6]!r} is not supported")
        position = token.end()
        _add(token, opened)
    return root.group


def _check(text: str) -> None:
    """Refuse what `re` refuses, and what may change its meaning in a later Python."""
    depth = deepest = 0
    for token in re.finditer(r"\\.|[()]", text, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(token.group(), 0)
        deepest = max(deepest, depth)
    if deepest > 4 * DEEPEST:  # brackets in character classes count here; the recursion of `re` is what bites
        raise ValueError(f"its groups are nested too deeply, more than {DEEPEST} levels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(text)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"it is not a valid regular expression ({reason})") from None


class _Open:
    """A group whose end is not reached yet, with the flags inside it."""

    def __init__(self, flags: frozenset[str], look: str | None) -> None:
        self.flags, self.look, self.group = flags, look, Group([[]])

    def node(self) -> Node:
        if self.look is None:
            return self.group
        return Look(self.group, ahead="<" not in self.look, positive=self.look.endswith("="))


def _add(token: re.Match[str], opened: list[_Open]) -> None:
    inner = opened[-1]
    sequence = inner.group.branches[-1]
    match token.lastgroup:
        case "open" | "look" | "on" | "off":
            opened.append(_Open((inner.flags | set(token["on"] or "")) - set(token["off"] or ""), token["look"]))
            if len(opened) > DEEPEST:
                raise ValueError(f"its groups are nested too deeply, more than {DEEPEST} levels")
        case "close":
            opened.pop()
            opened[-1].group.branches[-1].append(inner.node())
        case "or":
            inner.group.branches.append([])
        case "repeat":
            sequence.append(Repeat(sequence.pop(), *_bounds(token["repeat"])))
        case "flags" | "globally":
            inner.flags |= set(token["globally"])
        case "assertion":
            sequence.append(Assertion(("m" if "m" in inner.flags else "") + token["assertion"][-1]))
        case "atom" | "brace":
            sequence.append(_atom(token.group(), inner.flags))
        case _:  # a comment
            pass


def _atom(written: str, flags: frozenset[str]) -> Atom:
    letters = "".join(sorted(flags - {"m"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Atom(re.compile((f"(?{letters})" if letters else "") + (r"\{" if written == "{" else written)))


def _bounds(written: str) -> tuple[int, int | None]:
    if not written.startswith("{"):
        return int(written == "+"), 1 if written == "?" else None
    least, comma, most = written[1:-1].partition(",")
    return int(least or 0), int(most) if most else None if comma else int(least)
