"""Rooms are entered by their doors: other rooms import from `polyak.<room>`, never from `polyak.<room>.<file>`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "polyak"
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
# Kernels are imported file by file, each named after its algorithm: a merge loads the few that it needs.
BY_FILE = {"kernels"}


@cache
def private_files(room: str) -> frozenset[str]:
    """Files and folders of a room, without those whose name its door binds to something else."""
    files = {path.stem for path in (SOURCE / room).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    doors = [path for name in ("__init__.py", "__init__.pyi") if (path := SOURCE / room / name).exists()]
    nodes = [node for door in doors for node in ast.walk(ast.parse(door.read_text(encoding="utf-8")))]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return frozenset(files - {alias.asname or alias.name for node in imports for alias in node.names})


@cache
def imports_past_the_door() -> list[tuple[str, str]]:
    """Every import of a file of another room: the room that is entered, and where that happens."""
    past: list[tuple[str, str]] = []
    for path in sorted(SOURCE.rglob("*.py")):
        package = ["polyak", *path.relative_to(SOURCE).parts[:-1]]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                entered = [target for target in targets(node, package) if target[1:2] != package[1:2]]
                where = f"{path.relative_to(SOURCE)}, line {node.lineno}"
                past += [(t[1], f"{where}: {'.'.join(t)}") for t in entered if len(t) > 2 and t[1] in ROOMS]
    return past


def targets(node: ast.AST, package: list[str]) -> Iterator[list[str]]:
    """Modules of polyak that a statement imports, from the root."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".") for alias in node.names if alias.name.startswith("polyak."))
    if not isinstance(node, ast.ImportFrom):
        return
    base = package[: len(package) - node.level + 1] if node.level else []
    module = base + (node.module.split(".") if node.module else [])
    if module[:1] != ["polyak"]:
        return
    yield module
    if len(module) == 2 and module[1] in ROOMS:
        yield from ([*module, alias.name] for alias in node.names if alias.name in private_files(module[1]))


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in BY_FILE])
def test_a_room_is_entered_by_its_door(room: str):
    past = [where for entered, where in imports_past_the_door() if entered == room]
    assert not past, "\n".join([f"import these from polyak.{room}, and export there what it lacks:", *past])


def test_private_files_of_kernels_are_not_imported_from_outside():
    past = [where for room, where in imports_past_the_door() if room in BY_FILE and "._" in where]
    assert not past, past


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from ..checkpoint.folder import inside", True),
        ("from polyak.checkpoint.folder import inside", True),
        ("import polyak.checkpoint.folder", True),
        ("from ..checkpoint import folder", True),
        ("from ..checkpoint import fingerprint, inside", False),
        ("from . import folder", False),
        ("from .deep import folder", False),
        ("from ..errors import PolyakError", False),
    ],
)
def test_every_form_of_import_is_seen(statement: str, found: bool):
    (node,) = ast.parse(statement).body
    past = [target for target in targets(node, ["polyak", "planning"]) if len(target) > 2 and target[1] != "planning"]
    assert bool(past) is found
