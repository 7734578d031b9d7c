"""NuSLERP: spherical interpolation between two models or their task vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, KernelCall, Law, method
from ._passes import Gram, Products
from ._spherical import lengths_of, reciprocal, shares_of
from ._weights import cancel

Along: TypeAlias = Literal["last", "first"]
_PARALLEL = 1e-12  # square of the sine below which arc and straight line are the same


def _products(flatten: bool, along: Along) -> Gram:
    return Gram(of="deltas", scope="tensor" if flatten else "row" if along == "last" else "column")


@method(
    "nuslerp",
    source="Goddard et al., 2024. Arcee's MergeKit. arXiv:2403.13257",
    models=(2, 2),
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
    optional_base=True,
)
def nuslerp(
    deltas: Deltas,
    products: Annotated[Products, FirstPass(_products)],
    *,
    weight: Coefficient,
    flatten: bool = True,
    along: Along = "last",
) -> Delta:
    """Interpolate spherically between two models, or between their task vectors if there is a base.

    sin((1 - t) Omega) / sin Omega tau_1 + sin(t Omega) / sin Omega tau_2, where t = w_2 / (w_1 + w_2), Omega is the
    angle between the two task vectors and tau = theta where there is no base. Along the straight line, (1 - t) tau_1 +
    t tau_2, where sin^2 Omega < 1e-12 or one is zero.

    Departures:
        mergekit treats zero vectors as orthogonal to the other, and weights with a sum below 1e-6 as equal; it computes
        angles in the dtype of the inputs, here in float64.

    Args:
        deltas: (2, *shape).
        products: Inner products of the two.
        weight: Weight of each model; their ratio divides the arc.
        flatten: One angle per tensor; otherwise one per vector in it.
        along: Dimension of the vectors: `last` gives one angle per row, `first` one per column.
    """
    first, second = (products.spread(part, deltas) for part in _coefficients(products.value, weight))
    return first * deltas[0, ...] + second * deltas[1, ...]


@nuslerp.requires
def _has_a_sum(weight: tuple[float, ...]) -> str | None:
    return None if not cancel(weight) else f"the weights {list(weight)} sum to zero, so they do not divide the arc."


def _coefficients(products: Array, weight: Array) -> Array:
    """Coefficients of the two task vectors: (2, rows)."""
    xp = array_namespace(products)
    shares = shares_of(weight, products)
    t = shares[1] / xp.sum(shares)
    length = lengths_of(products)
    cosine = xp.clip(products[0, 1] * reciprocal(length[0] * length[1]), -1, 1)
    straight = (1 - cosine**2 < _PARALLEL) | (length[0] * length[1] == 0)
    omega = xp.acos(xp.where(straight, xp.zeros_like(cosine), cosine))
    arc = xp.stack([xp.sin((1 - t) * omega), xp.sin(t * omega)]) / xp.sin(omega)
    line = xp.stack([xp.ones_like(omega) * (1 - t), xp.ones_like(omega) * t])
    return xp.where(straight[None, :], line, arc)


@nuslerp.kernel
def _kernel(products: Products, weight: Any) -> KernelCall:
    import numpy as np

    from ..kernels.gram import sum_by_column, sum_by_row

    coefficients = _coefficients(products.value, weight)
    if products.columns:
        return KernelCall(sum_by_column, (coefficients.astype(np.float32),))
    return KernelCall(sum_by_row, (coefficients, products.row))
