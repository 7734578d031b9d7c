"""The public names are what the package says they are, and cost nothing until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import cast

import pytest

import polyak

SOURCE = Path(polyak.__file__).parent


@pytest.mark.parametrize("stub", sorted(SOURCE.rglob("__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_every_name_of_a_door_that_opens_on_use_exists(stub: Path):
    package = ".".join(["polyak", *stub.relative_to(SOURCE).parts[:-1]])
    door = import_module(package)
    names = [alias.asname for node in ast.parse(stub.read_text()).body for alias in cast("ast.ImportFrom", node).names]
    assert sorted(door.__all__) == sorted(names)
    for name in names:
        assert getattr(door, name) is not sys.modules.get(f"{package}.{name}"), f"{name} is the file of that name"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_help_imports_neither_numpy_nor_numba_nor_torch():
    heavy = {"numpy", "numba", "torch", "yaml", "ml_dtypes"}
    assert not heavy & loaded_by("import polyak.cli; polyak.cli.app")


def test_a_command_is_called_without_the_others():
    called = "import polyak.cli; sys.argv = ['polyak', 'schema', '--help']"
    loaded = loaded_by(f"{called}\ntry: polyak.cli.main()\nexcept SystemExit: pass")
    assert {name for name in loaded if name.startswith("polyak.cli.")} == {"polyak.cli._app", "polyak.cli.schema"}


def test_a_method_is_resolved_without_the_others():
    loaded = loaded_by("from polyak.methods import resolve; resolve('linear')")
    assert {name for name in loaded if name.startswith("polyak.methods.") and "._" not in name} == {
        "polyak.methods.linear"
    }


def test_planning_and_the_catalogue_import_neither_numba_nor_torch():
    assert not {"numba", "torch"} & loaded_by("import polyak.planning, polyak.methods; polyak.methods.load_all()")
