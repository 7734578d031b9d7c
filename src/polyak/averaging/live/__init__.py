"""Averages of the weights of a model while it trains, in any loop.

`Averager` holds the averages; a schedule, such as `ema`, says which weights enter an average and with which amounts. To
add a schedule, add one file to this folder, or name a module in the entry-point group `polyak.averages`.
"""

from __future__ import annotations

from ._averager import Averager as Averager
from ._best import Best as Best
from ._declaration import LIVE as LIVE
from ._declaration import Average as Average
from ._declaration import AverageKind as AverageKind
from ._declaration import Moment as Moment
from ._declaration import Schedule as Schedule
from ._declaration import average as average
from ._declaration import load_all as load_all
from ._declaration import registry as registry
from ._declaration import resolve as resolve
from ._profile import profile as profile
from ._synthesis import synthesised as synthesised
from .bema import bema as bema
from .ema import ema as ema
from .lawa import lawa as lawa
from .posthoc_ema import posthoc_ema as posthoc_ema
from .switch_ema import switch_ema as switch_ema
from .uniform import uniform as uniform
from .wsm import wsm as wsm
from .zscl import zscl as zscl
