"""MagMax: the largest change per entry."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from . import Delta, Deltas, Law, method


@method(
    "magmax",
    source="Marczak et al., 2024. MagMax: Leveraging Model Merging for Seamless Continual Learning. arXiv:2407.06322",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def magmax(deltas: Deltas, *, scale: float = 1.0) -> Delta:
    """Take, per entry, the task vector's entry with the largest magnitude.

    scale * tau_m, where m is the model of the largest |tau_m|.

    Of two entries that differ only in sign, the positive one is taken, independently of the order of the models.

    Departures:
        If two entries differ only in sign, the authors' code takes the last model's. It scales by 0.5 if models were
        fine-tuned independently; the default here is 1.

    Args:
        deltas: (k, *shape).
        scale: The paper's lambda, which is chosen on validation data; 0.5 is a usual value.
    """
    xp = array_namespace(deltas)
    highest, lowest = xp.max(deltas, axis=0), xp.min(deltas, axis=0)
    return scale * xp.where(highest >= -lowest, highest, lowest)


@magmax.kernel
def _kernel(out: Any, deltas: Any, scale: float) -> None:
    from ..kernels.changed_entries import largest_of

    largest_of(out, deltas, scale)
