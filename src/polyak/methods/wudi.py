"""WUDI: minimise the interference of the merge with each model."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, method
from ._interference import Interference, interference, workspace
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left

Solver: TypeAlias = Literal["adam", "closed"]
_NULL = 1e-10  # eigenvalues of C, relative to the largest, that its pseudo-inverse leaves out
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8  # Adam's constants


@method(
    "wudi",
    source="Cheng et al., 2025. Whoever Started the Interference Should End It. arXiv:2503.08099",
    workspace=workspace,
    laws={Law.SYMMETRIC},
)
def wudi(
    deltas: Deltas,
    name: Name,
    *,
    weight: Coefficient,
    solver: Solver = "adam",
    iterations: Annotated[int, In(0, 1_000_000)] = 300,
    learning_rate: Annotated[float, In(0, 1, above=True)] = 1e-5,
    scale: float = 1.0,
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "zero",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Start from the sum of the task vectors and minimise interference with each model's row space, by Adam.

    For a matrix, with Delta_t = w_t tau_t and n_t = |Delta_t|^2, the interference of M is
    sum_t |(M - Delta_t) Delta_t^T|^2 / n_t, and its gradient 2 (M C - D) with C = sum_t Delta_t^T Delta_t / n_t and
    D = sum_t Delta_t Delta_t^T Delta_t / n_t; tau = scale * M.

    Adam moves an entry by at most the learning rate per step, so M depends on the absolute size of the deltas: after
    300 steps of 1e-5 no entry is further than about 0.003 from the sum. Early stopping is the regulariser: the minimum,
    D C^+, has been reported to be worse (82.3 against 84.6 % for eight tasks with ViT-B/32). C and D are computed once,
    so that a step costs one product; all in float64.

    Departures:
        All matrices except `exclude` are merged; the authors' script merges only attention and MLP matrices.
        FusionBench uses 400 steps, and averages tensors that are not matrices.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        weight: Factor of each task vector, applied first (paper: 1).
        solver: `adam`, as the authors; or the `closed` form of the minimum, with eigenvalues of C that are at most
            1e-10 of the largest left out.
        iterations: Adam's steps; FusionBench has 400.
        learning_rate: Adam's step size; the authors have 2e-5 for RoBERTa.
        scale: Factor of the result; the paper has none.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none. The authors merge only
            attention and MLP matrices.
        vector_1d: Change of vectors: `zero` (authors), or `scale` times the `mean` of the weighted task vectors.
        conv: Treat tensors with three or more dimensions as a `vector` (authors), or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused` (authors), or `split` into three if each is square.
    """

    def merge(tasks: Tasks) -> Array:
        objective = interference(tasks)
        return _minimum(objective) if solver == "closed" else _descended(objective, iterations, learning_rate)

    return scale * merged(deltas, weight, name, qkv, merge)


def _minimum(objective: Interference) -> Array:
    xp = array_namespace(objective.c)
    values, vectors = xp.linalg.eigh(objective.c)
    above = values > _NULL * values[-1]
    inverse = xp.where(above, 1 / xp.where(above, values, xp.ones_like(values)), xp.zeros_like(values))
    return objective.d @ (vectors * inverse) @ vectors.T


def _descended(objective: Interference, iterations: int, learning_rate: float) -> Array:
    xp = array_namespace(objective.c)
    merged = objective.total + 0.0
    mean, square = xp.zeros_like(merged), xp.zeros_like(merged)
    for step in range(1, iterations + 1):
        gradient = 2 * (merged @ objective.c - objective.d)
        mean += (1 - _FIRST) * (gradient - mean)
        square += (1 - _SECOND) * (gradient * gradient - square)
        root = xp.sqrt(square) / (1 - _SECOND**step) ** 0.5 + _EPSILON
        merged -= learning_rate / (1 - _FIRST**step) * mean / root
    return merged


wudi.delegates_to(vectors_left)
