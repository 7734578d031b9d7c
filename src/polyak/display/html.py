"""Tables of HTML, for pages and for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of text, with a caption above it; the first column is aligned to the left by the page's style."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    heads = "".join(f"<th scope=col>{escape(cell).replace('.', '.<wbr>')}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table>{title}<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"


def fields(title: str, values: Mapping[str, str]) -> str:
    """Names and values as a small table under a title, for an object in a notebook."""
    lines = "".join(
        f"<tr><th style='text-align: left'>{escape(name)}</th><td style='text-align: left'>{escape(value)}</td></tr>"
        for name, value in values.items()
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{lines}</tbody></table>"
