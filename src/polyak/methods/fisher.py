"""Fisher-weighted averaging."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, FirstPass, In, Law, Merged, PerModel, Tensors, method
from ._passes import Sum
from ._stat import Stat
from ._weights import is_some

Floored: TypeAlias = Literal["target", "all"]


def _squares(normalize: bool) -> Sum | None:
    return Sum(_squared, scope="model") if normalize else None


def _squared(fisher: Array | None, weight: Array) -> Array:
    """The squares of every model's Fisher information, in float64: theirs underflow in float32."""
    xp = array_namespace(weight)
    if fisher is None:
        return xp.zeros((weight.shape[0], 1), dtype=xp.float64)
    return xp.astype(fisher, xp.float64) ** 2


@method(
    "fisher",
    source="Matena and Raffel, 2022. Merging models with Fisher-weighted averaging. arXiv:2111.09832",
    laws={Law.IDEMPOTENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def fisher(
    tensors: Tensors,
    fisher: Annotated[Array | None, Stat("fisher", signed=False)],
    squares: Annotated[Array | None, FirstPass(_squares)],
    *,
    weight: Annotated[Array, PerModel(1.0, In(0, float("inf")))],
    floor: Annotated[float, In(0, float("inf"))] = 1e-6,
    floored: Floored = "target",
    normalize: bool = False,
) -> Merged:
    """Average the models, each entry weighted by its diagonal Fisher information.

    sum_i w_i F_i theta_i / sum_i w_i F_i, where w_i is the weight, with `normalize` divided by ||F_i||_2 over all
    merged parameters, before the floor.

    Where every w_i F_i is zero, and for tensors of which no model has Fisher information, the models are averaged
    with the weights w_i. With equal Fisher information for all this is `linear`.

    A floor for the first model only leaves entries that are unimportant to every model with that model: the target
    task. `floored: all` averages them. Real Fisher information is often below 1e-6: check yours, or lower the floor.

    Departures:
        None from the authors' code, which applies a floor of 1e-6 to F, by default for the first model only. The paper
        has no floor. FusionBench and others square the gradient of a whole batch, which is not Fisher information:
        `polyak measure fisher` squares per-example gradients.

    Args:
        tensors: (k, *shape).
        fisher: Diagonal Fisher information of each model on its own data; non-negative.
        squares: Sums of the squares of F_i over the model.
        weight: Weight of each model, the paper's lambda.
        floor: Minimum Fisher information per entry; 0 for the paper's formula.
        floored: Models that the floor applies to: the first (`target`), or `all`.
        normalize: Divide by the norm of each model's Fisher information, so that a model with larger gradients does not
            dominate.
    """
    xp = array_namespace(tensors)
    relative = _weights(weight, squares)
    if fisher is None:
        return xp.sum(relative * tensors, axis=0) / xp.sum(relative)
    information = relative * _floored(fisher, floor, floored)
    # Shares first: products of a tiny F and a weight would lose digits before they are divided.
    total = xp.sum(information, axis=0)
    is_measured = total > 0
    shares = xp.where(
        is_measured, information / xp.where(is_measured, total, xp.ones_like(total)), relative / xp.sum(relative)
    )
    return xp.sum(shares * tensors, axis=0)


def _weights(weight: Array, squares: Array | None) -> Array:
    """The weights over the norms, relative to the largest; a model whose Fisher information is zero has no norm."""
    xp = array_namespace(weight)
    if squares is None:
        return weight / xp.max(weight)
    norms = xp.sqrt(xp.reshape(squares, (-1, *[1] * (weight.ndim - 1))))
    largest = xp.max(norms)
    norms = xp.where(norms > 0, norms, xp.ones_like(norms) * xp.where(largest > 0, largest, xp.ones_like(largest)))
    scaled = xp.astype(weight, xp.float64) / norms
    return xp.astype(scaled / xp.max(scaled), weight.dtype)


def _floored(fisher: Array, floor: float, floored: Floored) -> Array:
    xp = array_namespace(fisher)
    lifted = xp.where(fisher > floor, fisher, xp.full_like(fisher, floor))
    return lifted if floored == "all" else xp.concat([lifted[:1], fisher[1:]], axis=0)


fisher.requires(is_some)


@fisher.kernel
def _kernel(out: Any, tensors: Any, fisher: Any, squares: Any, weight: Any, floor: float, floored: Floored) -> None:
    import numpy as np

    from ..kernels.fisher import by_share
    from ..kernels.weighted_sums import weighted_sum

    relative = np.ascontiguousarray(_weights(weight[:, None], squares)[:, 0], np.float32)
    if fisher is None:
        weighted_sum(out, tensors, relative, 1 / relative.sum())
    else:
        by_share(out, tensors, fisher, relative, floor, 1 if floored == "target" else len(tensors))
