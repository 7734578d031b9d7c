"""The merge methods.  To add one, add one file to this folder; it is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from ._api import REQUIRED as REQUIRED
from ._api import Array as Array
from ._api import Base as Base
from ._api import Chance as Chance
from ._api import Coefficient as Coefficient
from ._api import Delta as Delta
from ._api import Deltas as Deltas
from ._api import FirstPass as FirstPass
from ._api import Fraction as Fraction
from ._api import In as In
from ._api import Law as Law
from ._api import Loop as Loop
from ._api import Merged as Merged
from ._api import Method as Method
from ._api import Name as Name
from ._api import Pattern as Pattern
from ._api import PerModel as PerModel
from ._api import Role as Role
from ._api import Setting as Setting
from ._api import Tensors as Tensors
from ._api import method as method
from ._api import registry as registry
from ._api import resolve as resolve
from ._masks import Masks as Masks
from ._passes import Cut as Cut
from ._passes import Gram as Gram
from ._passes import Order as Order
from ._passes import Products as Products
from ._passes import Rows as Rows
from ._passes import Sum as Sum
from ._passes import Top as Top
from ._stat import Stat as Stat


@cache
def load_all() -> None:
    """Import every built-in method, then every installed plugin (entry points of the group `polyak.methods`)."""
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("_"):
            importlib.import_module(f"{__name__}.{found.name}")
    for entry in entry_points(group="polyak.methods"):
        entry.load()
