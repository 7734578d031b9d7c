"""PCB: parameter competition balancing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, method
from ._passes import Order
from ._sparsify import Granularity

Variant: TypeAlias = Literal["official", "normalised", "pairwise"]


def _bounds(clip: float, granularity: Granularity) -> Order:
    """Magnitudes to which the entries of each model are clipped."""

    def index(entries: int) -> list[int]:
        low = int(entries * clip)
        return [low, max(int(entries * (1 - clip) - 1), low)]

    return Order(index, scope=granularity)


def _ends(ratio: float, granularity: Granularity) -> Order:
    """Smallest and largest winning score of each model."""

    def index(entries: int) -> list[int]:
        return [min(int(entries * (1 - ratio)), entries - 1), entries - 1]

    return Order(index, _scores_of, granularity, kernel=_scores_of_tile)


def _scores_of(deltas: Array, bounds: Array, variant: Variant) -> Array:
    return _scores(deltas, *_two(bounds, deltas), variant)


@method(
    "pcb",
    source="Du et al., 2024. Parameter Competition Balancing for Model Merging. arXiv:2410.02396",
    laws={Law.SYMMETRIC, Law.ELEMENTWISE},
)
def pcb(
    deltas: Deltas,
    bounds: Annotated[Array, FirstPass(_bounds)],
    ends: Annotated[Array, FirstPass(_ends)],
    *,
    weight: Coefficient,
    ratio: Annotated[float, In(0, 1, above=True)] = 0.1,
    variant: Variant = "official",
    clip: Annotated[float, In(0, 0.5)] = 1e-4,
    granularity: Granularity = "model",
    scale: float = 1.2,
) -> Delta:
    """Score entries by magnitude and by agreement with the other models; average the top entries weighted by score.

    A_i = |tau_i| between its clip-th and (1 - clip)-th quantile; C_i = sign(tau_i) A_i; q(x) is x from its minimum
    to its maximum as 0 to 1;
    beta_i = exp(k q(A_i)^2) tanh(tau_i sum_j tau_j);
    S_i = q(beta_i, not below its (1 - ratio)-th quantile);
    theta_0 + scale * sum_i S_i w_i C_i / max(sum_i S_i, 1e-12).

    Quantiles are the sorted entries at int(clip d), int((1 - clip) d - 1) and int((1 - ratio) d) of d. Where all
    numbers are equal, q is 0. beta is multiplied by exp(-k), which changes no S but allows more than 88 models to be
    merged.

    Departures:
        The default is one of four forms in the authors' repository. If all numbers are equal, the authors' code divides
        by zero.

    Args:
        deltas: (k, *shape).
        bounds: Smallest and largest magnitude of each model after the clip.
        ends: Smallest and largest winning score of each model.
        weight: Weight of each model; the authors search it from 0.8 to 1.3, in place of `scale`.
        ratio: Fraction of entries that win; the authors have 0.05 for vision models.
        variant: Form of the competition between models. The authors' repository has several: `official`, as above;
        `normalised`, tanh(tau_i sum_j n_j) with n_j = sign(tau_j) q(A_j) (their vision script, with `clip: 0.01` and
        `ratio: 0.05`); `pairwise`, sum_j tanh(n_i n_j) (their search). The paper writes a softmax for both terms, and
        no code has it.
        clip: Fraction of the entries that is clipped at either end; the authors' vision and language scripts have 0.01.
        granularity: Scope of the quantiles: the whole `model` (authors), or each `tensor`.
        scale: The authors' lambda.
    """
    xp = array_namespace(deltas)
    low, high = _two(bounds, deltas)
    shares = _stretched(_scores(deltas, low, high, variant), *_two(ends, deltas))
    clipped = xp.sign(deltas) * _between(xp.abs(deltas), low, high)
    total = xp.sum(shares, axis=0)
    return scale * xp.sum(shares * weight * clipped, axis=0) / xp.maximum(total, xp.full_like(total, _LEAST))


_LEAST = 1e-12


def _two(answer: Array, stack: Array) -> tuple[Array, Array]:
    """Two statistics of each model, shaped and typed to meet a stack."""
    xp = array_namespace(answer)
    low, high = xp.astype(xp.reshape(answer, (2, stack.shape[0], *[1] * (stack.ndim - 1))), stack.dtype)
    return low, high


def _scores(deltas: Array, low: Array, high: Array, variant: Variant) -> Array:
    """beta, times exp(-k)."""
    xp = array_namespace(deltas)
    size = _stretched(xp.abs(deltas), low, high)
    return xp.exp(deltas.shape[0] * (size**2 - 1)) * _agreement(deltas, size, variant)


def _agreement(deltas: Array, size: Array, variant: Variant) -> Array:
    """Agreement of each model with the others, per entry."""
    xp = array_namespace(deltas)
    if variant == "official":
        return xp.tanh(deltas * xp.sum(deltas, axis=0))
    normal = xp.sign(deltas) * size
    if variant == "normalised":
        return xp.tanh(deltas * xp.sum(normal, axis=0))
    return xp.stack([xp.sum(xp.tanh(normal[i] * normal), axis=0) for i in range(normal.shape[0])])


def _stretched(numbers: Array, low: Array, high: Array) -> Array:
    """Numbers from `low` to `high` as 0 to 1, others clipped; 0 where the two are equal."""
    xp = array_namespace(numbers)
    width = xp.where(high > low, high - low, xp.ones_like(high))
    return (_between(numbers, low, high) - low) / width


def _between(numbers: Array, low: Array, high: Array) -> Array:
    xp = array_namespace(numbers)
    return xp.minimum(xp.maximum(numbers, low), high)


@pcb.kernel
def _kernel(out: Any, deltas: Any, bounds: Any, ends: Any, weight: Any, variant: Variant, scale: float) -> None:
    from ..kernels.pcb import balanced

    score = _scores_of_tile(deltas, bounds, variant)
    balanced(out, deltas, score, weight, *_float32(bounds), *_float32(ends), scale)


def _scores_of_tile(deltas: Any, bounds: Any, variant: Variant) -> Any:
    import numpy as np

    from ..kernels.pcb import BLOCK, VARIANTS, scores

    out, space = np.empty_like(deltas), np.empty((2, len(deltas), BLOCK), np.float32)
    scores(out, deltas, *_float32(bounds), VARIANTS[variant], space)
    return out


def _float32(answer: Any) -> tuple[Any, Any]:
    import numpy as np

    low, high = np.ascontiguousarray(answer, np.float32)
    return low, high
