"""Statistics: measurements of a model on data, as inputs of merge methods. Results are checkpoints named like weights.

To add one, add one file to this folder, or name a module in the entry-point group `polyak.statistics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._data import Data as Data
from ._declaration import StatisticKind as StatisticKind
from ._declaration import load_all as load_all
from ._declaration import registry as registry
from ._declaration import resolve as resolve
from ._declaration import statistic as statistic
from ._measurement import Measurement as Measurement
from ._measurement import load as load
from ._measurement import merged as merged
from ._measurement import refuse_to_overwrite as refuse_to_overwrite
from ._measuring import measure as measure
from ._measuring import measure_to as measure_to
from ._recalibration import recalibrate as recalibrate
from ._recalibration import recalibrated_together as recalibrated_together
from ._replaced import write_with as write_with
from ._statistic import Statistic as Statistic
from .fisher import Fisher as Fisher
from .gram import Gram as Gram

if TYPE_CHECKING:
    from ._through_merge import measure_through_merge as measure_through_merge


def __getattr__(name: str) -> Any:
    if name != "measure_through_merge":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._through_merge import measure_through_merge  # imported when used: torch takes seconds

    return measure_through_merge
