"""An automaton for a regular expression: its sets of states are made when a text first needs them, and kept.

Source: Thompson, 1968. Regular expression search algorithm. Communications of the ACM 11(6), 419-422
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from ._regular import Assertion, Atom, Group, Look, Node, Repeat

MOST_STATES = 20_000
MOST_KEPT = 1 << 20  # states in all sets that are kept
STEPS = 30_000_000  # states visited in the life of a pattern; one of tensors' names takes thousands

_WORD = re.compile(r"\w")
_Conditions: TypeAlias = int  # one bit per condition: whether it holds at a position
_Key: TypeAlias = str | tuple[str, int]  # a character, with the conditions after it if there are any


class Automaton:
    """Tests whether a pattern matches somewhere in a text.

    Args of the constructor:
        root: The pattern.
        backwards: Read texts from the end, for look-ahead: `holding` then tells where a match begins.

    Raises:
        ValueError: it has too many states.
    """

    def __init__(self, root: Node, *, backwards: bool = False) -> None:
        self._backwards = backwards
        self._atoms: list[re.Pattern[str] | None] = []  # per state the characters that it takes; None takes none
        self._next: list[list[tuple[int, int]]] = []  # per state the states reached without a character: (state, bit)
        self._conditions: list[Assertion | Look] = []
        self._looks: dict[int, Automaton] = {}
        self._end = self._state()
        self._start = self._build(root, self._end)
        self._steps = self._kept = 0
        self._forget()

    # Building: every state has one way out by a character (to the state that its single entry of _next names), or any
    # number of ways without one.

    def _state(self, atom: re.Pattern[str] | None = None) -> int:
        if len(self._atoms) >= MOST_STATES:
            raise ValueError(f"it expands to more than {MOST_STATES:,} states")
        self._atoms.append(atom)
        self._next.append([])
        return len(self._atoms) - 1

    def _build(self, node: Node, after: int) -> int:
        """Add the states of a node that leads to the state `after`; return the one at which it begins."""
        match node:
            case Group(branches):
                return self._either([self._sequence(branch, after) for branch in branches])
            case Repeat():
                return self._repeat(node, after)
            case Atom(takes):
                state = self._state(takes)
                self._next[state] = [(after, 0)]
                return state
            case _:
                state = self._state()
                self._next[state] = [(after, self._bit(node))]
                return state

    def _either(self, starts: list[int]) -> int:
        if len(starts) == 1:
            return starts[0]
        state = self._state()
        self._next[state] = [(start, 0) for start in starts]
        return state

    def _sequence(self, nodes: Sequence[Node], after: int) -> int:
        for node in nodes if self._backwards else reversed(nodes):
            after = self._build(node, after)
        return after

    def _repeat(self, repeat: Repeat, after: int) -> int:
        if repeat.most is None:
            again = self._state()
            self._next[again] = [(self._build(repeat.node, again), 0), (after, 0)]
            after = again
        else:
            for _ in range(repeat.most - repeat.least):
                after = self._either([self._build(repeat.node, after), after])
        for _ in range(repeat.least):
            after = self._build(repeat.node, after)
            self._state()  # so that a repeated nothing is counted too
        return after

    def _bit(self, condition: Assertion | Look) -> int:
        for number, other in enumerate(self._conditions):
            if other is condition or (isinstance(other, Assertion) and other == condition):
                return 1 << number
        if isinstance(condition, Look):
            self._looks[len(self._conditions)] = Automaton(condition.group, backwards=condition.ahead)
        self._conditions.append(condition)
        return 1 << len(self._conditions) - 1

    # Matching

    def matches(self, text: str) -> bool:
        """Test whether the pattern matches anywhere in a text.

        Raises:
            ValueError: it takes too many steps.
        """
        if self._conditions:
            return any(states.at_end for states in self._walk(text))
        states = self._first.get(0) or self._begin(0)  # the same as `_walk`, in a third of the time
        for character in text:
            if states.at_end:
                return True
            following = states.get(character)
            states = self._step(states, character) if following is None else following
        return states.at_end

    def holding(self, text: str) -> list[bool]:
        """For each position, whether a match ends there; backwards, whether one begins there."""
        ends = [states.at_end for states in self._walk(text)]
        return ends[::-1] if self._backwards else ends

    def _walk(self, text: str) -> Iterator[_States]:
        """The states at each position, in the direction of reading."""
        characters = text[::-1] if self._backwards else text
        if not self._conditions:
            keys: Iterable[_Key] = characters
            states = self._first.get(0) or self._begin(0)
        else:
            held = self._hold(text)
            held = held[::-1] if self._backwards else held
            keys = zip(characters, held[1:], strict=True)
            states = self._first.get(held[0]) or self._begin(held[0])
        yield states
        for key in keys:
            following = states.get(key)
            states = self._step(states, key) if following is None else following
            yield states

    def _hold(self, text: str) -> list[_Conditions]:
        """The conditions that hold at each position."""
        held = [0] * (len(text) + 1)
        for number, condition in enumerate(self._conditions):
            if isinstance(condition, Look):
                true = self._looks[number].holding(text)
                positions = [i for i, is_true in enumerate(true) if is_true is condition.positive]
            else:
                positions = _positions(condition.kind, text)
            for i in positions:
                held[i] |= 1 << number
        return held

    def _forget(self) -> None:
        self._kept = 0
        self._sets: dict[tuple[frozenset[int], _Conditions, bool], _States] = {}
        self._first: dict[_Conditions, _States] = {}

    def _begin(self, held: _Conditions) -> _States:
        """The states at the beginning of a text, to which those of the conditions are added at every position."""
        states = self._first[held] = _States(*self._closure({self._start}, held), held)
        return states

    def _step(self, states: _States, key: _Key) -> _States:
        """The states after a character, where conditions hold at the position that follows."""
        character, held = key if isinstance(key, tuple) else (key, 0)
        first = self._first.get(states.held) or self._begin(states.held)
        if first.after.get(character) is None:
            first.after[character] = self._after(first.taking, character)
        reached = self._after(states.taking - first.taking, character) | first.after[character]
        beginning = self._first.get(held) or self._begin(held)
        taking, at_end = self._closure(reached, held)
        taking, at_end = taking | beginning.taking, at_end or beginning.at_end
        self._count(len(taking) // 8)
        following = self._sets.setdefault((taking, held, at_end), _States(taking, at_end, held))
        states[key] = following
        return following

    def _after(self, states: frozenset[int], character: str) -> frozenset[int]:
        self._count(len(states))
        takes = {atom: atom.fullmatch(character) is not None for state in states if (atom := self._atoms[state])}
        return frozenset(self._next[state][0][0] for state in states if takes[cast("Any", self._atoms[state])])

    def _closure(self, states: Iterable[int], held: _Conditions) -> tuple[frozenset[int], bool]:
        """The states that take a character among those reached without one; and whether the end is reached."""
        reached, waiting = set(states), list(states)
        while waiting:
            state = waiting.pop()
            self._count(1 + len(self._next[state]))
            if self._atoms[state] is None:
                for following, bit in self._next[state]:
                    if following not in reached and bit & held == bit:
                        reached.add(following)
                        waiting.append(following)
        return frozenset(state for state in reached if self._atoms[state] is not None), self._end in reached

    def _count(self, steps: int) -> None:
        self._steps += steps
        self._kept += steps
        if self._steps > STEPS:
            raise ValueError(f"it takes more than {STEPS:,} steps")
        if self._kept > MOST_KEPT:
            self._forget()


class _States(dict["_Key", "_States"]):
    """A set of states at a position, with those that follow by the character (and the conditions after it)."""

    def __init__(self, taking: frozenset[int], at_end: bool, held: _Conditions) -> None:
        super().__init__()
        self.taking, self.at_end, self.held = taking, at_end, held
        self.after: dict[str, frozenset[int]] = {}

    def __bool__(self) -> bool:
        return True


def _positions(kind: str, text: str) -> list[int]:
    """The positions of a text at which an assertion holds."""
    match kind:
        case "^" | "A" | "mA":
            return [0]
        case "m^":
            return [0, *(i + 1 for i, character in enumerate(text) if character == "\n")]
        case "$":
            return [len(text), *([len(text) - 1] if text.endswith("\n") else [])]
        case "m$":
            return [len(text), *(i for i, character in enumerate(text) if character == "\n")]
        case "Z" | "mZ":
            return [len(text)]
        case _:
            return _boundaries(text, kind[-1] == "b")


def _boundaries(text: str, are: bool) -> list[int]:
    """The positions between a character of words and another; or those that are not. An empty text has neither."""
    words = [False, *(_WORD.match(character) is not None for character in text), False]
    return [i for i in range(len(text) + 1) if (words[i] != words[i + 1]) is are] if text else []
