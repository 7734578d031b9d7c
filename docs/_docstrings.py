"""Google-style docstrings as Markdown."""

from __future__ import annotations

import re
import textwrap

from _methods import table

_SECTION = re.compile(r"^([A-Z]\w+):$", re.MULTILINE)
_ITEM = re.compile(r"^(\*{0,2}[\w.`, ]+?): (.*)", re.DOTALL)
_CODE = re.compile(r"(`[^`]*`)")


def markdown(docstring: str, *, without: frozenset[str] = frozenset()) -> str:
    """A docstring with its sections as bold captions, lists of names as tables.

    Args:
        docstring: As `inspect.getdoc` returns it.
        without: Sections to leave out.
    """
    body, *sections = _SECTION.split(docstring)
    parts = [_prose(body)]
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        inside, rest = _indented(text)
        if name not in without:
            parts += [f"**{name}**", _section(name, inside)]
        parts.append(_prose(rest))
    return "\n\n".join(part for part in parts if part.strip())


def items(docstring: str, section: str) -> dict[str, str]:
    """The names in a section of a docstring, with what it says about them."""
    _, *sections = _SECTION.split(docstring)
    texts = dict(zip(sections[::2], sections[1::2], strict=True))
    found = map(_ITEM.match, re.split(r"\n(?=\S)", _indented(texts.get(section, ""))[0]))
    return {item[1].strip("`"): " ".join(item[2].split()) for item in found if item}


def cell(text: str) -> str:
    """Prose for a table, where `table` itself escapes the bars."""
    return escaped(text).replace("\\|", "|")


def escaped(text: str) -> str:
    """Prose in which no formula becomes Markdown."""
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"(?<!\w)_|_(?!\w)|[*<|$]", lambda m: "\\" + m[0], part) for part in parts[::2]]
    return "".join(parts)


def _prose(text: str) -> str:
    """Escaped, with line breaks kept where a line of a formula ends."""
    return re.sub(r";\n(?=\S)", ";\\\n", escaped(text.strip()))


def _indented(text: str) -> tuple[str, str]:
    """The indented block that a section begins with, and what follows it."""
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return textwrap.dedent("\n".join(lines[:end])).strip(), "\n".join(lines[end:])


def _section(name: str, text: str) -> str:
    found = [_ITEM.match(item) for item in re.split(r"\n(?=\S)", text)]
    if name == "Departures" or not all(found):
        return _prose(text)
    rows = [[f"`{item[1].strip('`')}`", cell(" ".join(item[2].split()))] for item in found if item]
    return table(["exception" if name == "Raises" else "name", "meaning"], rows)
