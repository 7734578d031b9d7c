"""One model's tensors, unchanged or scaled."""

from __future__ import annotations

from typing import Any

from . import Law, Merged, Tensors, method


@method(
    "passthrough",
    source="Goddard et al., 2024. Arcee's MergeKit. arXiv:2403.13257",
    models=(1, 1),
    laws={Law.IDEMPOTENT, Law.ELEMENTWISE, Law.LINEAR},
)
def passthrough(tensors: Tensors, *, scale: float = 1.0) -> Merged:
    """Copy the tensors of one model, optionally scaled.

    scale * theta_1.

    Departures:
        None known.

    Args:
        tensors: (1, *shape).
        scale: Factor of the tensors.
    """
    return scale * tensors[0]


@passthrough.kernel
def _kernel(out: Any, tensors: Any, scale: float) -> None:
    import numpy as np

    np.multiply(tensors[0], np.float32(scale), out=out)
