"""The public names are what the package says they are, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import polyak


def test_every_public_name_exists_and_is_listed_once():
    assert sorted(polyak.__all__) == sorted([*polyak._HOMES, "__version__"])
    for name in polyak.__all__:
        assert getattr(polyak, name) is not None


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
