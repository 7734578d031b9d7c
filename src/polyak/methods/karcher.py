"""Karcher mean: the point on the sphere that is closest to all models."""

from __future__ import annotations

import math
from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, FirstPass, In, KernelCall, Law, Merged, PerModel, Tensors, method
from ._passes import Gram, Products
from ._spherical import lengths_of, reciprocal, shares_of, sum_in_loop, sum_with
from ._weights import cancel

_CANCELS = 1e-7  # length of a mean of unit vectors below which it has no direction: products are that exact


def _products() -> Gram:
    return Gram(of="tensors")


@method(
    "karcher",
    source="Karcher, 1977. Riemannian center of mass and mollifier smoothing. doi:10.1002/cpa.3160300502",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.ZERO_IS_ABSENT},
)
def karcher(
    tensors: Tensors,
    products: Annotated[Products, FirstPass(_products)],
    *,
    weight: Annotated[Array, PerModel(1.0, In(0, math.inf))],
    max_iter: Annotated[int, In(0, 10_000)] = 10,
    tol: Annotated[float, In(0, math.inf)] = 1e-5,
) -> Merged:
    """Average the directions of the models on the sphere (Karcher mean), and rescale to their mean norm.

    sum_i w_i |theta_i| * mu, weights sum to 1, where mu minimises sum_i w_i angle(mu, theta_i)^2, each tensor taken as
    one vector. From mu = sum_i w_i theta_i / |theta_i|, normalised, at most `max_iter` steps
    mu <- cos |v| mu + sin |v| v / |v|, where v = sum_i w_i a_i / sin a_i (theta_i / |theta_i| - cos a_i mu) and a_i is
    the angle between mu and theta_i, until |v| < tol.

    All steps are taken on the coefficients of the models, from their inner products in float64. Models with zero norm
    contribute to the norm only; if the directions cancel, the result is sum_i w_i theta_i.

    Departures:
        mergekit has no weights, starts from the first model if the directions cancel, and skips tensors with a norm
        below `tol`.

    Args:
        tensors: (k, *shape).
        products: Inner products of the tensors.
        weight: Weight of each model.
        max_iter: Maximum number of steps.
        tol: Step length, in radians, below which the iteration stops.
    """
    return sum_with(_coefficients(products.value[:, :, 0], weight, max_iter, tol), tensors)


@karcher.requires
def _has_a_sum(weight: tuple[float, ...]) -> str | None:
    return None if not cancel(weight) else f"the weights {list(weight)} sum to zero, so there is no mean."


def _coefficients(products: Array, weight: Array, max_iter: int, tol: float) -> Array:
    """Coefficient of each model: (k,)."""
    xp = array_namespace(products)
    length = lengths_of(products[:, :, None])[:, 0]
    shares = shares_of(weight, products)
    shares = shares / xp.sum(shares)
    inverse = reciprocal(length)
    units = products * inverse[:, None] * inverse[None, :]
    there = shares * xp.astype(length > 0, shares.dtype)
    total = xp.sum(there)
    if float(total) == 0:
        return shares
    mean = _mean(units, there / total, max_iter, tol)
    return shares if mean is None else xp.sum(shares * length) * mean * inverse


def _mean(units: Array, shares: Array, max_iter: int, tol: float) -> Array | None:
    """The coefficients of unit vectors with inner products `units` in their mean; None if they cancel."""
    xp = array_namespace(units)
    mean = _normalised(shares, units)
    for _ in range(max_iter):
        if mean is None:
            break
        cosine = xp.clip(xp.matmul(units, mean), -1, 1)
        sine = xp.sqrt(1 - cosine**2)
        curved = shares * xp.where(sine < _CANCELS, xp.ones_like(sine), xp.acos(cosine) * reciprocal(sine))
        step = curved - xp.sum(curved * cosine) * mean
        length = _length(step, units)
        if length < tol:
            break
        mean = _normalised(math.cos(length) * mean + math.sin(length) / length * step, units)
    return mean


def _length(coefficients: Array, units: Array) -> float:
    xp = array_namespace(units)
    return math.sqrt(max(float(xp.sum(coefficients[:, None] * coefficients[None, :] * units)), 0.0))


def _normalised(coefficients: Array, units: Array) -> Array | None:
    length = _length(coefficients, units)
    return None if length < _CANCELS else coefficients / length


@karcher.kernel
def _kernel(products: Products, weight: Any, max_iter: int, tol: float) -> KernelCall:
    return sum_in_loop(_coefficients(products.value[:, :, 0], weight, max_iter, tol))
