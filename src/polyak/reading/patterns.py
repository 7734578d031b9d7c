"""Untrusted regular expressions, matched in time that is linear in the length of the text.

Python's matcher backtracks: patterns such as `(a+)+b` take exponential time, and it cannot be interrupted. Here a
pattern becomes an automaton whose states are visited side by side. What depends on the position alone (anchors, word
boundaries, look-around) is computed for all positions of a text first; `re` only decides which single characters an
item takes.
"""

from __future__ import annotations

from functools import lru_cache

from ..errors import SettingError

LONGEST = 20_000  # characters of a pattern


class Pattern:
    """A regular expression with the meaning that it has in `re`, except for what needs backtracking.

    Args of the constructor:
        text: The expression.
        longest: Maximum number of characters.

    Raises:
        ValueError: it is invalid, too long, too deep or too large, or uses back-references, conditions, possessive or
            atomic groups, or verbose mode.
    """

    def __init__(self, text: str, longest: int = LONGEST) -> None:
        if len(text) > longest:
            raise ValueError(f"it has {len(text)} characters; at most {longest} are read")
        from ._automaton import Automaton
        from ._regular import parsed

        self.text = text
        self._automaton = Automaton(parsed(text))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def search(self, text: str) -> bool:
        """Test whether it matches anywhere in a text, as `re.search` does.

        Raises:
            SettingError: it takes too many steps.
        """
        try:
            return self._automaton.matches(text)
        except ValueError as error:
            raise SettingError(f"the pattern {self.text!r:.200} cannot be used: {error}. Simplify it.") from None


@lru_cache(maxsize=1024)
def compiled(text: str) -> Pattern:
    """The pattern of a text, compiled once.

    Raises:
        SettingError: it is not supported; readers of recipes refuse it earlier, with its location.
    """
    try:
        return Pattern(text)
    except ValueError as error:
        raise SettingError(f"{text!r:.200} is not a regular expression that can be used: {error}.") from error


def search(pattern: str, text: str) -> bool:
    """Test whether an untrusted pattern matches anywhere in a text; an empty pattern matches nothing.

    Raises:
        SettingError: the pattern is not supported, or takes too many steps.
    """
    return bool(pattern) and compiled(pattern).search(text)


@lru_cache(maxsize=1024)
def problem_with_pattern(written: str) -> str | None:
    """Explain why text is not a regular expression that can be used; None if it is fine."""
    try:
        compiled(written)
    except SettingError as error:
        return str(error.__cause__ or error)
    return None
