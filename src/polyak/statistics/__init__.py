"""Statistics: what is measured of a model on data, before it is merged.  Results are checkpoints named like weights."""

from __future__ import annotations

from ._api import Statistic as Statistic
from ._measurement import Measurement as Measurement
from ._measurement import load as load
from ._measurement import merged as merged
from .fisher import Fisher as Fisher
from .gram import Gram as Gram
from .measuring import measure as measure
from .measuring import measure_to as measure_to
from .recalibration import recalibrate as recalibrate
