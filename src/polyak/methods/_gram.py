"""Linear systems whose matrix is a sum of Gram matrices."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from array_api_compat import array_namespace

from ._passes import Array

Layout: TypeAlias = Literal["out_in", "in_out"]
_SINGULAR = 1e-7  # smallest over largest pivot of a factor that is still worth dividing by


def inputs_first(layout: Layout) -> bool:
    """True if matrices are stored as (inputs, outputs), as in Hugging Face's Conv1D."""
    return layout == "in_out"


def as_matrices(stack: Array, layout: Layout) -> Array:
    """A stack of tensors as matrices (k, outputs, inputs) in float64."""
    xp = array_namespace(stack)
    k = stack.shape[0]
    wide = xp.astype(stack, xp.float64)
    if layout == "in_out":
        return xp.matrix_transpose(xp.reshape(wide, (k, stack.shape[1], -1)))
    return xp.reshape(wide, (k, stack.shape[1], -1))


def as_tensor(matrix: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """The tensor that a matrix (outputs, inputs) stands for."""
    xp = array_namespace(matrix)
    return xp.reshape(xp.matrix_transpose(matrix) if layout == "in_out" else matrix, shape)


def numbers(column: Array) -> list[float]:
    """The numbers of an array, as Python numbers."""
    return [float(number) for number in array_namespace(column).reshape(column, (-1,))]


def shrunk(gram: Array, keep: float) -> Array:
    """keep * G + (1 - keep) * diag(G) in float64."""
    xp = array_namespace(gram)
    wide = xp.astype(gram, xp.float64)
    eye = xp.eye(wide.shape[0], dtype=xp.float64, **({"device": wide.device} if hasattr(wide, "device") else {}))
    return wide * (keep + (1 - keep) * eye)


def matched(tensors: Array, gram: Array | None, weight: Array, keep: float, ridge: float, layout: Layout) -> Array:
    """The tensor whose outputs are closest to each model's on that model's own inputs; without Grams the average.

    W^T = (sum_i w_i G_i + rho I)^-1 (sum_i w_i G_i W_i^T + rho M^T), M the weighted mean; see `regmean`.
    """
    xp = array_namespace(tensors)
    shares = weight / xp.sum(weight)
    if gram is None:
        return xp.sum(shares * tensors, axis=0)
    matrices, portions = as_matrices(tensors, layout), numbers(shares)
    mean = sum(portions[i] * matrices[i, ...] for i in range(tensors.shape[0]))
    total, pull = 0.0, 0.0
    for i in range(tensors.shape[0]):  # one Gram in float64 at a time
        weighted_gram = portions[i] * shrunk(gram[i, ...], keep)
        total = total + weighted_gram
        pull = pull + weighted_gram @ xp.matrix_transpose(matrices[i, ...] - mean)
    correction = solve(_ridged(total, ridge), pull)
    return as_tensor(mean + xp.matrix_transpose(correction), tuple(tensors.shape[1:]), layout)


def _ridged(total: Array, ridge: float) -> Array:
    xp = array_namespace(total)
    mean = float(xp.linalg.trace(total)) / max(total.shape[0], 1)
    eye = xp.eye(total.shape[0], dtype=xp.float64, **({"device": total.device} if hasattr(total, "device") else {}))
    return total + ridge * mean * eye


def solve(matrix: Array, right: Array) -> Array:
    """Solve matrix @ x = right for a symmetric matrix without negative eigenvalues, in float64.

    By Cholesky decomposition; for a singular matrix by its pseudo-inverse, which gives the x of minimum norm.
    """
    xp = array_namespace(matrix)
    try:
        factor = xp.linalg.cholesky(matrix)
        pivots = xp.linalg.diagonal(factor)
        if float(xp.min(pivots)) > math.sqrt(_SINGULAR) * float(xp.max(pivots)):
            return xp.linalg.solve(xp.matrix_transpose(factor), xp.linalg.solve(factor, right))
    except (ValueError, RuntimeError):  # not positive: NumPy's LinAlgError is the first, torch's the second
        pass
    values, vectors = xp.linalg.eigh(matrix)
    kept = values > matrix.shape[0] * 2.0**-52 * xp.max(xp.abs(values))
    inverse = xp.where(kept, 1 / xp.where(kept, values, xp.ones_like(values)), xp.zeros_like(values))
    return vectors @ (inverse[:, None] * (xp.matrix_transpose(vectors) @ right))
