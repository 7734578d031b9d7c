"""The registered methods, by name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnknownMethod

if TYPE_CHECKING:
    from ._method import Method

registry: dict[str, Method] = {}


def resolve(name: str) -> Method:
    """Look up a method by name, with dashes or underscores; only the built-in methods that are requested are imported.

    Raises:
        UnknownMethod: there is none; the message suggests a similar name.
    """
    written, name = name, name.replace("-", "_")
    if name in _built_in():
        importlib.import_module(f"{__package__}.{name}")
    if name not in registry:
        load_all()  # a file may declare several, plugins any
    if name not in registry:
        raise UnknownMethod(written, registry)
    return registry[name]


@cache
def load_all() -> None:
    """Import every built-in method, then every installed plugin (entry points of the group `polyak.methods`).

    The registry then has them in the order of their names, whatever was asked for before.
    """
    from importlib.metadata import entry_points

    for name in _built_in():
        importlib.import_module(f"{__package__}.{name}")
    for entry in entry_points(group="polyak.methods"):
        entry.load()
    found = sorted(registry.items())
    registry.clear()
    registry.update(found)


@cache
def _built_in() -> tuple[str, ...]:
    return tuple(
        found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]) if not found.name.startswith("_")
    )
