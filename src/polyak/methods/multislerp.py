"""MultiSLERP: spherical average of any number of models."""

from __future__ import annotations

import math
from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, KernelCall, Law, method
from ._passes import Gram, Products
from ._spherical import lengths_of, shares_of, sum_in_loop, sum_with
from ._weights import has_a_sum


def _products() -> Gram:
    return Gram(of="deltas")


@method(
    "multislerp",
    source="Goddard, 2025. Multi-SLERP. goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.ZERO_IS_ABSENT},
    optional_base=True,
)
def multislerp(
    deltas: Deltas,
    products: Annotated[Products, FirstPass(_products)],
    *,
    weight: Coefficient,
    normalize: bool = True,
    eps: Annotated[float, In(0, math.inf, above=True)] = 1e-8,
) -> Delta:
    """Average the directions of the models, or of their task vectors if there is a base, and rescale to the mean norm.

    sum_i w_i |tau_i| * m / |m|, where m = sum_i w_i tau_i / |tau_i|, weights sum to 1, and tau = theta where there is
    no base. Where |m| is below eps the directions cancel, and the result is sum_i w_i tau_i.

    The source maps to the tangent plane at the mean direction, averages there and maps back. That average is zero for
    every input, so it is omitted here.

    Departures:
        None numerically; mergekit fails if more than two directions cancel.

    Args:
        deltas: (k, *shape).
        products: Inner products of the task vectors.
        weight: Weight of each model; may be negative.
        normalize: Divide the weights by their sum.
        eps: Added to every norm before division; directions whose mean is below it cancel.
    """
    return sum_with(_coefficients(products.value[:, :, 0], weight, normalize, eps), deltas)


multislerp.requires(has_a_sum)


def _coefficients(products: Array, weight: Array, normalize: bool, eps: float) -> Array:
    """Coefficient of each task vector: (k,)."""
    xp = array_namespace(products)
    shares = shares_of(weight, products)
    if normalize:
        shares = shares / xp.sum(shares)
    length = lengths_of(products[:, :, None])[:, 0]
    directions = shares / (length + eps)
    square = xp.sum(directions[:, None] * directions[None, :] * products)
    mean = xp.sqrt(xp.clip(square, 0, math.inf))
    cancels = mean < eps
    stretch = xp.sum(shares * length) / xp.where(cancels, xp.ones_like(mean), mean)
    return xp.where(cancels, shares, stretch * directions)


@multislerp.kernel
def _kernel(products: Products, weight: Any, normalize: bool, eps: float) -> KernelCall:
    return sum_in_loop(_coefficients(products.value[:, :, 0], weight, normalize, eps))
