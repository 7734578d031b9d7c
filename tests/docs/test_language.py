"""Docs, help texts, docstrings and messages are free of the phrasings that `banned_phrasings.toml` lists."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "polyak"
LIST = tomllib.loads(Path(__file__).with_name("banned_phrasings.toml").read_text(encoding="utf-8"))
BANNED = [(re.compile(one["pattern"], re.IGNORECASE), one["instead"]) for one in LIST["banned"]]
OPENERS = re.compile(rf"(?:{'|'.join(LIST['openers'])})\b")
# `docs/reference` is written when the site is built, from docstrings and help texts.
PAGES = [*ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md", *(ROOT / "docs" / "symptoms").glob("*.md")]
PAGES = sorted([*PAGES, *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.rst")])
SCRIPTS = [*(ROOT / "docs").glob("*.py"), *(ROOT / "examples" / "recipes").glob("*.yaml")]

ROOMS = sorted(path for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())


class Text(NamedTuple):
    """A text for readers, and the place where it begins."""

    text: str
    place: str
    opens: bool = False


def problems(texts: Iterator[Text]) -> list[str]:
    """One line per banned phrasing."""
    return [f"{text.place}: {problem}" for text in texts for problem in _problems(text)]


def _problems(text: Text) -> Iterator[str]:
    flat = " ".join(text.text.split())
    if text.opens and (opener := OPENERS.match(flat)):
        yield f"opens with {opener[0]!r}: {flat[:60]!r}"
    for pattern, instead in BANNED:
        for found in pattern.finditer(flat):
            yield f"{flat[max(found.start() - 30, 0) : found.end() + 20]!r}; write: {instead}"


def page_texts(page: Path) -> Iterator[Text]:
    """A page without its generated parts, which derive from the source, and without the output of programs."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<!-- ([^>\n]*):start -->.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```text\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n|\n(?=[-|])", text):
        yield Text(paragraph, page.name)


def source_texts(path: Path) -> Iterator[Text]:
    """The docstrings of a file, and its other strings of several words: help texts and messages."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = set(map(id, _docstrings(tree)))
    helps = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "help"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        place = f"{path.relative_to(ROOT)}:{node.lineno}"
        if id(node) in docstrings:
            yield from _of_docstring(node.value, place)
        elif len(node.value.split()) > 2 or id(node) in helps:
            yield Text(node.value, place, opens=id(node) in helps)


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            assert isinstance(first, ast.Expr)
            assert isinstance(first.value, ast.Constant)
            yield first.value


def _of_docstring(text: str, place: str) -> Iterator[Text]:
    """Its paragraphs and items; the first paragraph and the text of an item open something."""
    for i, part in enumerate(re.split(r"\n\s*\n|\n(?=\s*\w+: )", text)):
        item = re.match(r"\s*\w+: (.*)", part, re.DOTALL)
        yield Text(item[1] if item else part, place, opens=i == 0 or item is not None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_free_of_banned_phrasings(page: Path):
    assert problems(page_texts(page)) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_writes_the_pages_is_free_of_banned_phrasings(path: Path):
    texts = source_texts(path) if path.suffix == ".py" else iter([Text(path.read_text(encoding="utf-8"), path.name)])
    assert problems(texts) == []


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_sources_are_free_of_banned_phrasings(room: Path):
    paths = sorted(room.rglob("*.py")) if room.is_dir() else [room]
    assert [problem for path in paths for problem in problems(source_texts(path))] == []


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("One number an example.", "per"),
        ("`foo` is no key that is known here", "unknown key"),
        ("How gradients are had", "computed"),
        ("Of the latest, every so manyth.", "every N-th"),
        ("elect a sign, merge what has it", "agree"),
    ],
)
def test_banned_phrasings_are_found(text: str, instead: str):
    (problem, *_) = problems(iter([Text(text, "here")]))
    assert instead in problem


@pytest.mark.parametrize("text", ["What each delta is worth.", "Whether it fits.", "How many."])
def test_openers_are_found_where_something_opens(text: str):
    assert problems(_of_docstring(f"Sum up.\n\nArgs:\n    name: {text}\n", "here"))
    assert problems(_of_docstring(text, "here"))
    assert not problems(_of_docstring(f"Sum up.\n\n{text}\n", "here"))
