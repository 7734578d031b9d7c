"""The merge methods.  To add one, add one file to this folder; it is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from ._api import REQUIRED as REQUIRED
from ._api import FirstPass as FirstPass
from ._api import Law as Law
from ._api import Method as Method
from ._api import Role as Role
from ._api import Setting as Setting
from ._api import method as method
from ._api import registry as registry
from ._api import resolve as resolve


@cache
def load_all() -> None:
    """Import every built-in method, then every installed plugin (entry points of the group `polyak.methods`)."""
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("_"):
            importlib.import_module(f"{__name__}.{found.name}")
    for entry in entry_points(group="polyak.methods"):
        entry.load()
