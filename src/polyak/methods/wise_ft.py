"""WiSE-FT: interpolation between base and fine-tune."""

from __future__ import annotations

from typing import Any

from . import Delta, Deltas, Fraction, Law, method


@method(
    "wise_ft",
    source="Wortsman et al., 2022. Robust fine-tuning of zero-shot models. arXiv:2109.01903",
    models=(1, 1),
    laws={Law.ELEMENTWISE, Law.HOMOGENEOUS, Law.LINEAR},
)
def wise_ft(deltas: Deltas, *, alpha: Fraction = 0.5) -> Delta:
    """Interpolate between the base and the model.

    (1 - alpha) theta_0 + alpha theta_1 = theta_0 + alpha tau.

    Departures:
        None known.

    Args:
        deltas: (1, *shape).
        alpha: 0 gives the base, 1 the model; the paper takes 0.5 where there is no data to choose by.
    """
    return alpha * deltas[0]


@wise_ft.kernel
def _kernel(out: Any, deltas: Any, alpha: float) -> None:
    import numpy as np

    np.multiply(deltas[0], np.float32(alpha), out=out)
