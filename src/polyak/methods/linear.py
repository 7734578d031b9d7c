"""Weighted average of models."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from . import Coefficient, KernelCall, Law, Merged, Tensors, method
from ._weights import has_a_sum


@method(
    "linear",
    source="Wortsman et al., 2022. Model soups. arXiv:2203.05482",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS, Law.LINEAR},
)
def linear(tensors: Tensors, *, weight: Coefficient, normalize: bool = True) -> Merged:
    """Average the models with weights: a model soup.

    sum_i w_i theta_i / sum_i w_i; without `normalize`, sum_i w_i theta_i.

    Equal weights give the uniform soup; weights by number of examples give FedAvg; geometric weights over
    the checkpoints of a run give their exponential moving average.

    Departures:
        None known.

    Args:
        tensors: (k, *shape).
        weight: Weight of each model; may be negative.
        normalize: Divide by the sum of the weights.
    """
    xp = array_namespace(tensors)
    merged = xp.sum(weight * tensors, axis=0)
    return merged / xp.sum(weight) if normalize else merged


linear.requires(has_a_sum)


@linear.kernel
def _kernel(weight: Any, normalize: bool) -> KernelCall:
    from ..kernels.weighted_sums import combine

    return KernelCall(combine, (weight, float(1 / weight.sum()) if normalize else 1.0))
