"""Tables of HTML, for pages and for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of text, with a caption above it; the first column is aligned to the left by the page's style."""
    title = f"<caption>{_escaped(caption)}</caption>" if caption else ""
    heads = "".join(f"<th scope=col>{_escaped(cell).replace('.', '.<wbr>')}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table>{title}<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"


def fields(title: str, values: Mapping[str, str]) -> str:
    """Names and values as a small table under a title, for an object in a notebook."""
    left = "style='text-align: left'"
    lines = "".join(
        f"<tr><th {left}>{_escaped(name)}</th><td {left}>{_escaped(value)}</td></tr>" for name, value in values.items()
    )
    return f"<table><caption>{_escaped(title)}</caption><tbody>{lines}</tbody></table>"


def _escaped(text: str) -> str:
    from html import escape  # a merge prints no pages, and starts sooner without it

    return escape(text)
