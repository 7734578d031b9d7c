"""Model Stock: interpolation between base and mean by the angle between task vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, KernelCall, Law, method
from ._passes import Gram, Products

Scope: TypeAlias = Literal["tensor", "row"]
_SINGULAR = 1e-6
_TOGETHER = 2**16  # rows whose ratios are found at a time: what that takes is several times their products


def _products(granularity: Scope) -> Gram:
    return Gram(of="deltas", scope=granularity)


@method(
    "model_stock",
    source="Jang et al., 2024. Model Stock: All we need is just a few fine-tuned models. arXiv:2403.19522",
    models=(2, None),
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def model_stock(
    deltas: Deltas,
    products: Annotated[Products, FirstPass(_products)],
    *,
    clamp: bool = True,
    granularity: Scope = "tensor",
) -> Delta:
    """Interpolate between the base and the models' mean, by the angle between the task vectors.

    t mean_i(theta_i) + (1 - t) theta_0, where t = k c / (1 + (k - 1) c) and c is the mean over pairs of models of the
    cosine between their task vectors.

    The cosine of two zero task vectors is 1, that of a zero and a non-zero one is 0. If 1 + (k - 1) c is nearly zero
    (1e-6), the base is kept.

    Departures:
        The authors released no code. By default c is clamped at 0, because t would be negative below. mergekit does not
        clamp, and bounds products of two norms below by 1e-6, which pulls tensors with tiny task vectors to the base.
        FusionBench averages angles instead of cosines.

    Args:
        deltas: (k, *shape).
        products: Inner products of the task vectors.
        clamp: Clamp c at 0: for negative c, t is negative and the result moves away from every model.
        granularity: Scope of the angle: each `tensor`, or each `row` (last dimension).
    """
    xp = array_namespace(deltas)
    return products.spread(_ratio(products.value, clamp, xp), deltas) * xp.mean(deltas, axis=0)


def _ratio(products: Array, clamp: bool, xp: Any) -> Array:
    """The ratio t of each row, (rows,), by the functions of a namespace of arrays."""
    k = products.shape[0]
    cosine = _mean_cosine(products, xp)
    if clamp:
        cosine = xp.clip(cosine, 0, 1)
    divisor = 1 + (k - 1) * cosine
    singular = xp.abs(divisor) < _SINGULAR
    return xp.where(singular, xp.zeros_like(cosine), k * cosine / xp.where(singular, xp.ones_like(divisor), divisor))


def _mean_cosine(products: Array, xp: Any) -> Array:
    k = products.shape[0]
    norms = xp.sqrt(xp.stack([products[i, i] for i in range(k)]))
    lengths = norms[:, None] * norms[None, :]
    both_zero = xp.where(norms[:, None] + norms[None, :] == 0, xp.ones_like(lengths), xp.zeros_like(lengths))
    cosines = xp.where(lengths == 0, both_zero, products / xp.where(lengths == 0, xp.ones_like(lengths), lengths))
    pairs = xp.stack([cosines[a, b] for a in range(k) for b in range(a)])
    return xp.mean(pairs, axis=0)


@model_stock.kernel
def _kernel(products: Products, clamp: bool) -> KernelCall:
    import numpy as np

    from ..kernels.gram import mean_by_row

    # NumPy itself: `array_namespace` would import all of NumPy, which takes a tenth of a second.
    value, ratio = products.value, np.empty(products.value.shape[2])
    for at in range(0, ratio.size, _TOGETHER):
        ratio[at : at + _TOGETHER] = _ratio(value[:, :, at : at + _TOGETHER], clamp, np)
    return KernelCall(mean_by_row, (ratio, products.row))
