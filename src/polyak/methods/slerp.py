"""Spherical interpolation."""

from __future__ import annotations

import math
from typing import Annotated

from . import FirstPass, Fraction, KernelCall, Law, Merged, Tensors, method
from ._passes import Gram, Products

_PARALLEL = 0.9995  # cosine from which the sine is too small to divide by
_NO_LENGTH = 1e-8


def _products() -> Gram:
    return Gram(of="tensors")


@method(
    "slerp",
    source="Shoemake, 1985. Animating rotation with quaternion curves. doi:10.1145/325165.325242",
    models=(2, 2),
    laws={Law.IDEMPOTENT, Law.ELEMENTWISE},
)
def slerp(tensors: Tensors, products: Annotated[Products, FirstPass(_products)], *, t: Fraction = 0.5) -> Merged:
    """Interpolate spherically between the tensors of two models.

    sin((1 - t) Omega) / sin Omega theta_1 + sin(t Omega) / sin Omega theta_2, where Omega is the angle between the two
    tensors, each taken as one vector; lengths are not normalised. Along the straight line, (1 - t) theta_1 + t theta_2,
    where |cos Omega| > 0.9995 or a tensor is zero (norm at most 1e-8): this includes most tensors of fine-tunes of one
    base.

    Departures:
        mergekit treats a tensor of zeros as orthogonal to the other.

    Args:
        tensors: (2, *shape).
        products: Inner products of the two tensors.
        t: 0 gives the first model, 1 the second.
    """
    first, second = _coefficients(products, t)
    return first * tensors[0] + second * tensors[1]


def _coefficients(products: Products, t: float) -> tuple[float, float]:
    (a, between), (_, b) = ((float(pair[0]) for pair in row) for row in products.value)
    if min(a, b) <= _NO_LENGTH**2:
        return 1 - t, t
    cosine = between / math.sqrt(a * b)
    if abs(cosine) > _PARALLEL:
        return 1 - t, t
    omega = math.acos(cosine)
    return math.sin((1 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)


@slerp.kernel
def _kernel(products: Products, t: float) -> KernelCall:
    import numpy as np

    from ..kernels.weighted_sums import combine

    return KernelCall(combine, (np.array(_coefficients(products, t), np.float32), 1.0))
