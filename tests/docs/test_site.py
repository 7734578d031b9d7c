"""The documentation site: every page is in its navigation, its reference derives from the code, its paths exist."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

from polyak import cli, methods

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILT = {"reference/commands", "reference/methods", "reference/api", "reference/contributing", "reference/changelog"}


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """The part of the generator that writes the reference pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("_reference")


def navigation() -> list[str]:
    """The entries of the navigation; those with a star stand for any number of pages."""
    trees = re.findall(r"^\.\. toctree::\n(.*?)(?=^\S|\Z)", (DOCS / "index.rst").read_text(), re.DOTALL | re.MULTILINE)
    return [line.strip() for tree in trees for line in tree.splitlines() if line.strip() and ":" not in line]


def pages() -> list[str]:
    found = (path.relative_to(DOCS).with_suffix("") for path in (*DOCS.glob("*.md"), *DOCS.glob("*/*.md")))
    return [str(page) for page in found if page.parts[0] != "reference"]


@pytest.mark.parametrize("page", pages())
def test_every_page_is_in_the_navigation(page: str):
    assert any(fnmatch(page, entry) for entry in navigation()), f"list {page} in docs/index.rst"


def test_every_entry_of_the_navigation_is_a_page_once():
    named = [entry for entry in navigation() if "*" not in entry]
    assert set(named) <= set(pages()) | BUILT
    assert len(named) == len(set(named))


def test_the_readme_links_to_every_page_that_is_not_reference():
    linked = set(re.findall(r"\(docs/([\w/-]+)\.md\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    optional = {page for entry in navigation() if "*" in entry for page in pages() if fnmatch(page, entry)}
    assert set(pages()) - optional <= linked


def test_paths_that_the_page_about_changes_names_exist():
    text = (DOCS / "where-to-change-what.md").read_text(encoding="utf-8")
    paths = re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.\w+)`", text)
    assert len(paths) > 60
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_page_about_changes_names_every_room():
    text = (DOCS / "where-to-change-what.md").read_text(encoding="utf-8")
    assert [room for room in rooms() if f"src/polyak/{room}/" not in text] == []


def test_how_it_works_has_every_room_and_no_other():
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8").partition("## From recipe to plan")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == rooms()


def rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "src" / "polyak").glob("*/__init__.py")}


def test_the_front_page_has_five_rows_against_a_rival():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.partition("<!-- benchmark:start -->")[2].partition("<!-- benchmark:end -->")[0]
    assert len(re.findall(r"^\| (?!---)", part, re.MULTILINE)) == 1 + 5


def test_the_command_reference_has_every_command_and_option(reference: ModuleType):
    text = reference.commands()
    assert {f"polyak {name}" for name in cli.commands()} <= set(re.findall(r"^## (polyak \w+)", text, re.MULTILINE))
    assert re.search(r"^\| `--workers <?int", text, re.MULTILINE | re.IGNORECASE)
    assert "`--recipe`, `-o" in text or "`-o`, `--recipe" in text


def test_the_method_reference_has_every_method_and_the_meaning_of_its_settings(reference: ModuleType):
    text = reference.methods_page()
    methods.load_all()
    built_in = [m for m in methods.registry.values() if m.fn.__module__.startswith("polyak.methods.")]
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == {method.name for method in built_in}
    assert not re.findall(r"^\| `\w+` \| [^|]* \|  \|$", text, re.MULTILINE), "a setting without a meaning"
    assert inspect.getdoc(methods.resolve("ties").fn).splitlines()[0] in text


def test_the_api_reference_has_every_public_name(reference: ModuleType):
    pytest.importorskip("torch")
    import polyak

    text = reference.api()
    names = [name for name in polyak.__all__ if callable(getattr(polyak, name))]
    assert [name for name in names if f"### polyak.{name}\n" not in text] == []
    assert "### polyak.testing.check_method\n" in text


def test_formulas_are_not_markup(reference: ModuleType):
    docstrings = importlib.import_module("_docstrings")
    assert docstrings.escaped("2 * x_i * _y <z> `a*b`") == r"2 \* x_i \* \_y \<z> `a*b`"
    assert docstrings.markdown("Sum.\n\nArgs:\n    x: First,\n        continued.\n    y: Second.\n").splitlines()[
        -2:
    ] == [
        "| `x` | First, continued. |",
        "| `y` | Second. |",
    ]
