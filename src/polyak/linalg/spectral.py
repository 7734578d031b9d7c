"""Decompositions for the spectral methods: in float64, and for float32 matrices to that accuracy where it is faster.

A singular value decomposition of X is computed from the eigenvalues of the smaller of X^T X and X X^T, which is several
times cheaper. That squares the condition: a singular value s comes with a relative error of about 1e-16 (s_1 / s)^2. So
directions with s <= 1e-6 s_1, the null directions, are dropped (rounding gives them arbitrary vectors), and where one
that is kept has s < 1e-5 s_1, the decomposition is done again by the singular value decomposition itself.

Float32 matrices are handled in `float32`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from array_api_compat import array_namespace

from .arrays import Array
from .float32 import leading_triplets, orthogonal_factor

NEGLIGIBLE = 1e-6  # singular values, relative to the largest, from which on directions count
SQUARED = 1e-5  # ... from which on the square of a matrix tells enough


class Components(NamedTuple):
    """Singular triplets, largest first, without null directions.

    Attributes:
        u: (d_out, c).
        s: (c,).
        v: (d_in, c).
    """

    u: Array
    s: Array
    v: Array


def components(matrix: Array, most: int | None = None) -> Components:
    """The `most` largest singular triplets of a matrix (default: all)."""
    xp = array_namespace(matrix)
    matrix = xp.astype(matrix, xp.float64, copy=False)
    most = min(matrix.shape) if most is None else min(most, min(matrix.shape))
    tall = matrix.shape[0] >= matrix.shape[1]
    s, small = spectrum(matrix.T @ matrix if tall else matrix @ matrix.T)
    s, small = s[:most], small[:, :most]
    kept = count_above(s, NEGLIGIBLE)
    if kept and float(s[kept - 1]) < SQUARED * float(s[0]):
        u, s, vt = xp.linalg.svd(matrix, full_matrices=False)
        kept = count_above(s[:most], NEGLIGIBLE)
        return Components(u[:, :kept], s[:kept], vt[:kept, :].T)
    s, small = s[:kept], xp.asarray(small[:, :kept], copy=True)  # a view would keep all eigenvectors alive
    large = (matrix @ small if tall else matrix.T @ small) / s
    return Components(large, s, small) if tall else Components(small, s, large)


def spectrum(gram: Array) -> tuple[Array, Array]:
    """Roots of the eigenvalues, largest first, and the eigenvectors."""
    xp = array_namespace(gram)
    values, vectors = xp.linalg.eigh(gram)
    return xp.sqrt(xp.clip(xp.flip(values), min=0)), xp.flip(vectors, axis=1)


def count_above(s: Array, share: float) -> int:
    """Count how many descending numbers are above a share of the first."""
    xp = array_namespace(s)
    return int(xp.sum(xp.astype(s > share * s[0], xp.int64))) if s.shape[0] else 0


def orthogonal(matrix: Array) -> Array:
    """The polar factor P Q^T of a matrix P S Q^T, without null directions."""
    factor = orthogonal_factor(matrix)
    return polar(matrix)[0] if factor is None else factor


def polar(matrix: Array) -> tuple[Array, Array]:
    """The polar factor P Q^T of a matrix P S Q^T and the singular values S, without null directions."""
    xp = array_namespace(matrix)
    matrix = xp.astype(matrix, xp.float64, copy=False)
    tall = matrix.shape[0] >= matrix.shape[1]
    s, small = spectrum(matrix.T @ matrix if tall else matrix @ matrix.T)
    kept = count_above(s, NEGLIGIBLE)
    if kept and float(s[kept - 1]) < SQUARED * float(s[0]):
        u, s, vt = xp.linalg.svd(matrix, full_matrices=False)
        kept = count_above(s, NEGLIGIBLE)
        return u[:, :kept] @ vt[:kept, :], s[:kept]
    small, s = small[:, :kept], s[:kept]
    root = (small / s) @ small.T
    return (matrix @ root if tall else root @ matrix), s


def leading(matrix: Array, count: int) -> Components:
    """The `count` largest singular triplets, at least one."""
    triplets = leading_triplets(matrix, max(1, count))
    return components(matrix, max(1, count)) if triplets is None else Components(*triplets)


def joined(parts: Sequence[Components]) -> Components:
    """Triplets side by side."""
    xp = array_namespace(parts[0].u)
    us, ss, vs = zip(*parts, strict=True)
    return Components(xp.concat(us, axis=1), xp.concat(ss), xp.concat(vs, axis=1))


def joined_orthogonally(parts: Sequence[Components], *, equally: bool = False) -> Array:
    """polar(U) diag(S) polar(V)^T of triplets side by side.

    Args:
        parts: The triplets.
        equally: Replace every number of S by their mean.
    """
    u, s, v = joined(parts)
    if not s.shape[0]:
        return u @ v.T
    xp = array_namespace(s)
    return product(orthogonal(u), xp.mean(s) + xp.zeros_like(s) if equally else s, orthogonal(v))


def isotropic(matrix: Array) -> Array:
    """The matrix with all its singular values replaced by their mean."""
    xp = array_namespace(matrix)
    if (factor := orthogonal_factor(matrix)) is not None:  # the singular values' sum is the symmetric factor's trace
        trace = float(xp.sum(xp.vecdot(matrix, factor), dtype=xp.float64))
        return factor * (trace / min(matrix.shape))
    factor, s = polar(matrix)
    return float(xp.mean(s)) * factor if s.shape[0] else factor


def workspace(k: int, shape: tuple[int, ...]) -> int:
    """Bytes that a few decompositions of a matrix take at their peak, inputs and result not counted; as measured."""
    rows, columns = shape[0], math.prod(shape[1:])
    return 4 * (10 * rows * columns + 16 * min(rows, columns) ** 2)


def product(u: Array, s: Array, v: Array) -> Array:
    """U diag(s) V^T."""
    return (u * s) @ v.T
