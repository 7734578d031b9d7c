"""ExPO: extrapolation along the direction of fine-tuning."""

from __future__ import annotations

import math
from typing import Annotated, Any

from . import Delta, Deltas, In, Law, method


@method(
    "expo",
    source="Zheng et al., 2024. Model Extrapolation Expedites Alignment. arXiv:2404.16792",
    models=(1, 1),
    laws={Law.ELEMENTWISE, Law.HOMOGENEOUS, Law.LINEAR},
)
def expo(deltas: Deltas, *, alpha: Annotated[float, In(0, math.inf)] = 0.3) -> Delta:
    """Extrapolate from the base beyond the model.

    theta_1 + alpha (theta_1 - theta_0) = theta_0 + (1 + alpha) tau.

    Departures:
        None known.

    Args:
        deltas: (1, *shape).
        alpha: Distance beyond the model; the paper searches between 0.1 and 0.5.
    """
    return (1 + alpha) * deltas[0]


@expo.kernel
def _kernel(out: Any, deltas: Any, alpha: float) -> None:
    import numpy as np

    np.multiply(deltas[0], np.float32(1 + alpha), out=out)
