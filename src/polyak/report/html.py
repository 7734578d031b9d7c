"""HTML pages that need no other file."""

from __future__ import annotations

from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: for every kind of sight

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #ddd; --fill: #cfe3f2; --soft: #666; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #161616; --line: #3a3a3a; --fill: #1d3f57; --soft: #a0a0a0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; white-space: nowrap; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th { vertical-align: bottom; } td:not(:first-child):not(:last-child) { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td:first-child { min-width: 8em; overflow-wrap: anywhere; }
td.part { background: linear-gradient(90deg, var(--fill) var(--share), transparent var(--share)); }
tr.best { font-weight: 600; } tr.first td { border-top: 2px solid var(--soft); }
pre { border: 1px solid var(--line); padding: .7rem; font-size: .85rem; line-height: 1.35;
  white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
figure p { color: var(--soft); margin: 0; font-size: .9rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg line, svg .axis { stroke: var(--line); } svg text.label { fill: var(--soft); }
"""


def document(title: str, body: str) -> str:
    """A whole page with its style inside.

    Args:
        title: As text.
        body: As HTML.
    """
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>"


def figure(title: str, plot: str, note: str = "") -> str:
    """A plot under its title, with a note beneath the title; title and note are text."""
    words = f"<p>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{words}{plot}</figure>"
