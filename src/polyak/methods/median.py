"""Coordinate-wise median."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from . import Law, Merged, Tensors, method


@method(
    "median",
    source="Yin et al., 2018. Byzantine-Robust Distributed Learning. arXiv:1803.01498",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def median(tensors: Tensors) -> Merged:
    """Take the median of the models per entry, which is robust to a few faulty models.

    The middle value, or the mean of the two middle values for an even number of models.

    Departures:
        None known.

    Args:
        tensors: (k, *shape).
    """
    xp = array_namespace(tensors)
    k = tensors.shape[0]
    ordered = xp.sort(tensors, axis=0)
    return ordered[(k - 1) // 2] / 2 + ordered[k // 2] / 2


@median.kernel
def _kernel(out: Any, tensors: Any) -> None:
    from ..kernels.weighted_sums import middle, order

    order(tensors)
    middle(out, tensors)
