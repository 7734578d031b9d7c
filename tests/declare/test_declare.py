"""Declarations: settings and keys from signatures, values bound to them, and the registry that finds them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import pytest

from polyak.declare import In, Pattern, Registry, argument_help, bind, keys_of, read_keys, settings_of
from polyak.errors import DeclarationError, RecipeError, SettingError
from polyak.reading.strict import Place, Table

if TYPE_CHECKING:
    from somewhere import Nothing  # pyright: ignore[reportMissingImports]


def declared(
    data: Nothing,
    *,
    rate: Annotated[float, In(0, 1)] = 0.5,
    steps: int,
    how: Literal["fast", "slow"] = "fast",
    names: Pattern = "",
) -> None:
    """Does nothing.

    Args:
        data: Anything.
        rate: A share,
            of two lines.
        steps: How many.

    Raises:
        Nothing: never.
    """


def test_settings_come_from_keyword_only_parameters():
    settings = settings_of("learner 'x'", declared)
    assert list(settings) == ["rate", "steps", "how", "names"]
    assert settings["how"].kind == ("fast", "slow")
    assert bind("learner 'x'", settings, {"steps": 2, "rate": 1}) == {
        "rate": 1.0, "steps": 2, "how": "fast", "names": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "learner 'x' needs a value for 'steps'"),
        ({"steps": 1, "rat": 0}, "learner 'x' has no setting 'rat'. Did you mean 'rate'?"),
        ({"steps": 1, "rate": 2}, "'rate' of learner 'x' must be between 0 and 1; got 2"),
        ({"steps": 1.5}, "'steps' of learner 'x' must be an integer; got 1.5"),
        ({"steps": 1, "how": "quick"}, "must be one of fast, slow; got 'quick'"),
        ({"steps": 1, "names": "("}, "must be a regular expression"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(SettingError) as refused:
        bind("learner 'x'", settings_of("learner 'x'", declared), values)
    assert message in str(refused.value)


def test_help_comes_from_the_docstring():
    assert argument_help(declared) == {"data": "Anything.", "rate": "A share, of two lines.", "steps": "How many."}


def test_annotations_that_cannot_be_settings_are_refused():
    def of_bytes(*, x: bytes = b"") -> None: ...

    def of_two(*, x: int | str = 0) -> None: ...

    def of_nothing(*, x: Nothing) -> None: ...

    with pytest.raises(DeclarationError, match="annotate the setting 'x' as float, int"):
        settings_of("learner 'x'", of_bytes)
    with pytest.raises(DeclarationError, match="Import what it names outside of TYPE_CHECKING"):
        settings_of("learner 'x'", of_nothing)
    for fn in (of_bytes, of_two):
        with pytest.raises(DeclarationError, match="annotate the key 'x' as str"):
            keys_of("kind 'x'", fn)


def _even(value: object, place: Place) -> int:
    if not isinstance(value, int) or value % 2:
        raise place.expected("an even number", value)
    return value


def of_keys(
    *,
    column: str = "text",
    labels: tuple[str, ...] = (),
    size: Annotated[int | None, _even] = None,
    top: int,
    on: bool = False,
    how: Literal["a", "b"] = "a",
) -> None: ...


def test_keys_are_read_as_they_are_annotated():
    keys = keys_of("kind 'x'", of_keys)
    table = Table({"labels": ["no", "yes"], "size": 4, "top": 3}, Place("task.yaml"))
    assert read_keys(keys, table) == {
        "column": "text", "labels": ("no", "yes"), "size": 4, "top": 3, "on": False, "how": "a",
    }  # fmt: skip
    assert keys["labels"].values == "list of text" and keys["how"].values == "`a`, `b`"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "has no 'top'"),
        ({"top": 1, "size": 3}, "size must be an even number; got 3"),
        ({"top": 1, "labels": "no"}, "labels must be a list"),
        ({"top": 1, "how": "c"}, "how must be one of a, b"),
        ({"top": 1, "on": 1}, "on must be true or false"),
    ],
)
def test_keys_that_do_not_fit_are_refused(data, message):
    with pytest.raises(RecipeError, match=message):
        read_keys(keys_of("kind 'x'", of_keys), Table(data, Place("task.yaml")))


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of a package with two built-in declarations, and an installed package."""
    package = tmp_path / "shapes_of_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from polyak.declare import Registry\n"
        "registry = Registry('shape', package=__name__, group='test.shapes', unknown=lambda n, k: KeyError(n, *k))\n"
    )
    for name in ("round_one", "square"):
        (package / f"{name}.py").write_text(f"from . import registry\nregistry.add('{name}', 1, __name__)\n")
    (package / "_private.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("shapes_of_test").registry
    for name in [name for name in sys.modules if name.startswith("shapes_of_test")]:
        del sys.modules[name]


def plug_in(folder, source):
    (folder / "plugged_in_of_test.py").write_text(source)
    about = folder / "plugged_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[test.shapes]\nstar = plugged_in_of_test\n")


def test_a_name_is_resolved_without_the_other_modules(registry: Registry[int]):
    assert registry.resolve("round-one") == 1
    assert "shapes_of_test.square" not in sys.modules
    registry.load_all()
    assert list(registry) == ["round_one", "square"] and registry.is_built_in("square")
    with pytest.raises(KeyError, match=r"star.*round_one"):
        registry.resolve("star")


def test_installed_packages_add_to_it(registry: Registry[int], tmp_path):
    plug_in(tmp_path, "from shapes_of_test import registry\nregistry.add('star', 5, __name__)\n")
    assert registry.resolve("star") == 5
    assert not registry.is_built_in("star")
    sys.modules.pop("plugged_in_of_test")


def test_a_broken_package_is_named_with_the_remedy(registry: Registry[int], tmp_path):
    plug_in(tmp_path, "raise ZeroDivisionError('oh')\n")
    with pytest.raises(DeclarationError, match=r"plugged-in offers 'star'.*oh \(ZeroDivisionError\).*uninstall"):
        registry.load_all()


def test_a_name_is_declared_once(registry: Registry[int]):
    registry.load_all()
    with pytest.raises(DeclarationError, match=r"here and shapes_of_test.square both declare the shape 'square'"):
        registry.add("square", 2, "here")


def test_a_function_is_declared_by_its_signature_and_needs_a_docstring(registry: Registry[object]):
    def wavy(*, height: float = 0.5) -> None:
        """A wave."""

    settings = registry.declare("wavy", wavy, lambda owner: settings_of(owner, wavy))
    assert registry.resolve("wavy") is settings
    with pytest.raises(DeclarationError, match=r"shape 'plain' has no docstring"):
        registry.declare("plain", lambda: None, lambda owner: owner)
    with pytest.raises(DeclarationError, match=r"shape 'bent': annotate the setting 'angle'"):

        def bent(*, angle: list[int]) -> None:
            """An angle."""

        registry.declare("bent", bent, lambda owner: settings_of(owner, bent))
    assert set(registry) == {"wavy"}
