"""Sizes, columns and names in plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What a terminal obeys rather than shows, or what reorders or breaks lines, and what cannot be encoded.
_UNPRINTABLE = [
    *(code for code in range(0x20) if code not in (9, 10)), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F,
    *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000),
]  # fmt: skip
_ESCAPED = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNPRINTABLE}


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: control characters are written as escapes."""
    return text.translate(_ESCAPED)


def shown(name: str) -> str:
    """A name as it is, or quoted with escapes if it holds anything that is not printable."""
    return name if name.isprintable() else repr(name)


def human_size(nbytes: float) -> str:
    """A size in bytes with three significant figures, such as `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders the numbers within names as numbers: `layers.2` before `layers.10`."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in parts]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )
