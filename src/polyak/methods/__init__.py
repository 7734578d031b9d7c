"""The merge methods.  To add one, add one file to this folder; it is found by itself."""

from __future__ import annotations

from ._declare import method as method
from ._masks import Masks as Masks
from ._method import KernelCall as KernelCall
from ._method import Method as Method
from ._passes import Array as Array
from ._passes import Cut as Cut
from ._passes import Gram as Gram
from ._passes import Order as Order
from ._passes import Products as Products
from ._passes import Rows as Rows
from ._passes import Sum as Sum
from ._passes import Top as Top
from ._registry import load_all as load_all
from ._registry import registry as registry
from ._registry import resolve as resolve
from ._setting import Setting as Setting
from ._signature import REQUIRED as REQUIRED
from ._signature import Base as Base
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
from ._signature import Uniform as Uniform
from ._stat import Stat as Stat
