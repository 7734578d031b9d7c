"""Coordinate-wise trimmed mean."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import In, Law, Merged, Tensors, method


@method(
    "trimmed_mean",
    source="Yin et al., 2018. Byzantine-Robust Distributed Learning. arXiv:1803.01498",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def trimmed_mean(tensors: Tensors, *, trim: Annotated[float, In(0, 0.5)] = 0.1) -> Merged:
    """Average the models per entry, without the largest and the smallest values.

    The mean of k values without the int(trim k) largest and as many smallest;
    at least one value is left, two of an even k, so that a trim of 0.5 is the median.

    Departures:
        None known.

    Args:
        tensors: (k, *shape).
        trim: Fraction of the models removed at either end: the paper's beta, which should be at least the fraction of
            faulty models. With fewer than 1 / trim models none is removed.
    """
    xp = array_namespace(tensors)
    k = tensors.shape[0]
    cut = _cut(k, trim)
    return xp.mean(xp.sort(tensors, axis=0)[cut : k - cut, ...], axis=0)


def _cut(k: int, trim: float) -> int:
    """Number of values removed at either end."""
    return min(int(trim * k), (k - 1) // 2)


@trimmed_mean.kernel
def _kernel(out: Any, tensors: Any, trim: float) -> None:
    import numpy as np

    from ..kernels.weighted_sums import order, weighted_sum

    cut = _cut(len(tensors), trim)
    if cut:
        order(tensors)
    left = tensors[cut : len(tensors) - cut]
    weighted_sum(out, left, np.ones(len(left), np.float32), 1 / len(left))
