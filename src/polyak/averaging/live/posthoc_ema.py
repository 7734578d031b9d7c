"""Two power-function averages, from which others are synthesised afterwards (post-hoc EMA)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from ...declare import In
from ...errors import SettingError
from ..power_function import WIDEST, Profile, Synthesis, exponent_of, synthesise
from ._declaration import Moment, Schedule, average

Width = Annotated[float, In(0, WIDEST, above=True)]


@average(
    "posthoc_ema",
    source="Karras et al., 2024. Analyzing and improving the training dynamics of diffusion models. arXiv:2312.02696",
)
def posthoc_ema(
    narrow: Width = 0.05,
    *,
    wide: Width = 0.1,
    every: Annotated[int, In(1, math.inf)] = 1,
    start: Annotated[int, In(0, math.inf)] = 0,
) -> Schedule:
    """Two averages with power-function profiles; averages of other widths are synthesised from them when they are read.

    a_n = b_n a_(n-1) + (1 - b_n) theta_n, b_n = (1 - 1 / n) ** (gamma + 1): the weight of theta_i is proportional to
    i ** (gamma + 1) - (i - 1) ** (gamma + 1).
    Its width is the standard deviation of the profile relative to the length of training,
    sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)). Reading takes the option `width` (default: `narrow`), and the
    provenance tells the correlation of the profile with the wanted one. It keeps two copies of the weights.

    Args:
        narrow: Width of the first average.
        wide: Width of the second average.
        every: Update at every N-th step.
        start: Step after which training counts.

    Source: Karras et al., 2024, arXiv:2312.02696, section 3 and appendix C.

    Departures: see `polyak.averaging.synthesise`. From the two averages at one step only widths near theirs are
        accurate; `synthesised` combines state files of several steps, as the paper does with snapshots.
    """
    if narrow == wide:
        raise SettingError(f"the widths of average 'posthoc_ema' must differ; both are {narrow:g}.")
    exponents = (exponent_of(narrow), exponent_of(wide))

    def update(moment: Moment) -> Mapping[int, float]:
        n = moment.updates + 1
        return {slot: 1 - (1 - 1 / n) ** (gamma + 1) for slot, gamma in enumerate(exponents)}

    def value(moment: Moment, width: float = narrow) -> Mapping[int, float]:
        return dict(enumerate(_synthesis(moment, width).coefficients))

    def facts(moment: Moment, width: float = narrow) -> Mapping[str, Any]:
        return {"width": width, "correlation": _synthesis(moment, width).correlation}

    def _synthesis(moment: Moment, width: float) -> Synthesis:
        return synthesise([Profile(gamma, moment.updates) for gamma in exponents], width)

    return Schedule(update, value, slots=2, every=every, start=start, facts=facts)
