"""MaTS: merging by matching models in their task parameter subspaces, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, In, Law, PerModel, method
from ._gram import Layout, as_matrices, as_tensor, inputs_first, numbers, shrunk
from ._stat import Stat
from ._weights import is_some

By: TypeAlias = Literal["gram", "fisher"]
Operator: TypeAlias = Callable[[Array], Array]
_SOLVED = 1e-12  # length of the residual, relative to the right side


def _by_gram(by: By) -> bool:
    return by == "gram"


def _by_fisher(by: By) -> bool:
    return by == "fisher"


@method(
    "mats",
    source="Tam, Bansal and Raffel, 2024. Merging by matching models in task parameter subspaces. arXiv:2312.04339",
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def mats(
    deltas: Deltas,
    gram: Annotated[Array | None, Stat("gram", shape="gram", inputs_first=inputs_first, when=_by_gram)],
    fisher: Annotated[Array | None, Stat("fisher", signed=False, when=_by_fisher)],
    *,
    weight: Annotated[Array, PerModel(1.0, In(0, float("inf")))],
    by: By = "gram",
    iterations: Annotated[int, In(0, 100_000)] = 100,
    start: float = 0.3,
    layout: Layout = "out_in",
) -> Delta:
    """Solve sum_i w_i A_i tau = sum_i w_i A_i tau_i by conjugate gradients, starting from scaled task arithmetic.

    A_i is a statistic of model i's data: its Gram matrix, which acts on the inputs of a layer, or its diagonal Fisher
    information. Early stopping leaves directions absent from all data at their start, so singular Gram matrices need no
    ridge. It ends before `iterations` once the residual is 1e-12 of the right side.

    With Grams and many iterations this is `regmean` without shrinking, with Fisher information `fisher` without a
    floor: those solve directly. Tensors without the statistic get the weighted mean of the task vectors.

    Departures:
        The paper's block Fisher (K-FAC) is not implemented.

    Args:
        deltas: (k, *shape).
        gram: Gram matrix of each model's inputs, X^T X / n: (k, d, d).
        fisher: Diagonal Fisher information of each model; non-negative.
        weight: Weight of each model.
        by: The statistic to use.
        iterations: Maximum number of steps.
        start: Start from this factor times the sum of the task vectors (task arithmetic), as in the authors' code.
        layout: Layout of matrices: (outputs, inputs), as in torch's Linear, or (inputs, outputs), as in GPT-2's Conv1D.
    """
    xp = array_namespace(deltas)
    shares = weight / xp.sum(weight)
    if fisher is not None:
        wide, weighted = (xp.astype(array, xp.float64) for array in (deltas, shares * fisher))
        total, right = xp.sum(weighted, axis=0), xp.sum(weighted * wide, axis=0)
        return conjugate_gradients(lambda x: total * x, right, start * xp.sum(wide, axis=0), iterations)
    if gram is None:
        return xp.sum(shares * deltas, axis=0)
    wide, portions = as_matrices(deltas, layout), numbers(shares)
    grams = [portions[i] * shrunk(gram[i, ...], 1.0) for i in range(len(portions))]
    matrix = sum(grams[1:], start=grams[0])
    right = sum((wide[i, ...] @ grams[i] for i in range(1, len(portions))), start=wide[0, ...] @ grams[0])
    merged = conjugate_gradients(lambda x: x @ matrix, right, start * xp.sum(wide, axis=0), iterations)
    return as_tensor(merged, tuple(deltas.shape[1:]), layout)


def conjugate_gradients(operator: Operator, right: Array, x: Array, iterations: int) -> Array:
    """Solve operator(x) = right for a linear operator without negative eigenvalues.

    Args:
        operator: Symmetric in the inner product of all entries.
        right: The right side.
        x: Starting point.
        iterations: Maximum number of steps.
    """
    xp = array_namespace(right)
    residual = right - operator(x)
    direction, length = residual, float(xp.sum(residual * residual))
    enough = _SOLVED**2 * float(xp.sum(right * right))
    for _ in range(iterations):
        if length <= enough:
            break
        image = operator(direction)
        curvature = float(xp.sum(direction * image))
        if curvature <= 0:  # the residual is in the null space of the operator
            break
        x = x + length / curvature * direction
        residual = residual - length / curvature * image
        last, length = length, float(xp.sum(residual * residual))
        direction = residual + length / last * direction
    return x


mats.requires(is_some)
