"""The merge methods.  To add one, add one file to this folder; it is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..errors import UnknownMethod
from ._declare import method as method
from ._masks import Masks as Masks
from ._method import Loop as Loop
from ._method import Method as Method
from ._method import registry as registry
from ._passes import Array as Array
from ._passes import Cut as Cut
from ._passes import Gram as Gram
from ._passes import Order as Order
from ._passes import Products as Products
from ._passes import Rows as Rows
from ._passes import Sum as Sum
from ._passes import Top as Top
from ._setting import Setting as Setting
from ._signature import REQUIRED as REQUIRED
from ._signature import Base as Base
from ._signature import Chance as Chance
from ._signature import Coefficient as Coefficient
from ._signature import Delta as Delta
from ._signature import Deltas as Deltas
from ._signature import FirstPass as FirstPass
from ._signature import Fraction as Fraction
from ._signature import In as In
from ._signature import Law as Law
from ._signature import Merged as Merged
from ._signature import Name as Name
from ._signature import Pattern as Pattern
from ._signature import PerModel as PerModel
from ._signature import Role as Role
from ._signature import Tensors as Tensors
from ._stat import Stat as Stat


def resolve(name: str) -> Method:
    """Look a method up by name; of the built-in ones, those alone are imported that have been asked for.

    Raises:
        UnknownMethod: there is none, with the name that was probably meant.
    """
    if name in _built_in():
        importlib.import_module(f"{__name__}.{name}")
    if name not in registry:
        load_all()  # a file may declare several, plugins any
    if name not in registry:
        raise UnknownMethod(name, registry)
    return registry[name]


@cache
def load_all() -> None:
    """Import every built-in method, then every installed plugin (entry points of the group `polyak.methods`).

    The registry then has them in the order of their names, whatever was asked for before.
    """
    from importlib.metadata import entry_points

    for name in _built_in():
        importlib.import_module(f"{__name__}.{name}")
    for entry in entry_points(group="polyak.methods"):
        entry.load()
    found = sorted(registry.items())
    registry.clear()
    registry.update(found)


@cache
def _built_in() -> tuple[str, ...]:
    return tuple(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
