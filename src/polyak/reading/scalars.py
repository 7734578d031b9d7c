"""Values of unquoted text, by the core schema of YAML 1.2."""

from __future__ import annotations

import re

MOST_DIGITS = 1_000  # of an integer; Python itself has a limit, which its users and builds may set
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """Resolve unquoted text by the core schema of YAML 1.2.

    Raises:
        ValueError: it is an integer with more than `MOST_DIGITS` digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return read_integer(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1].isalpha() else text)
    return text


def read_integer(text: str) -> int:
    """Read the digits of an integer.

    Raises:
        ValueError: there are more than `MOST_DIGITS`.
    """
    if len(text) > MOST_DIGITS:
        raise ValueError(f"an integer of more than {MOST_DIGITS:,} digits; write text in quotes")
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)
