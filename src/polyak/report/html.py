"""HTML pages that need nothing but themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #ddd; --fill: #cfe3f2; --soft: #666; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #161616; --line: #3a3a3a; --fill: #1d3f57; --soft: #a0a0a0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
td.part { background: linear-gradient(90deg, var(--fill) var(--share), transparent var(--share)); }
tr.best { font-weight: 600; } tr.first td { border-top: 2px solid var(--soft); }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .7rem; font-size: .85rem; line-height: 1.35; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg line { stroke: var(--line); } figcaption { color: var(--soft); } figure { margin: 1rem 0; }
"""


def document(title: str, body: str) -> str:
    """A whole page, with its style inside.

    Args:
        title: As text.
        body: As HTML.
    """
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text; the first column is aligned to the left."""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{heads}</tr>{lines}</table></div>"
