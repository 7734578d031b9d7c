"""Decompositions of large float32 matrices, to that accuracy.

Polar factors take no singular vectors, but bidiagonal matrices: of square matrices whose least singular value is above
1e-5 of the largest, and of others where it is above a tenth. See `polar`; it needs NumPy's own LAPACK.

What follows is for the rest, and for the leading directions. Eigenvectors in float32 take about half the time of those
in float64, and a few of them a third. They do not tell directions apart whose singular values are below a tenth of the
largest, since those were squared; such directions are found again in float64, in the small space that they span.
Where that does not help either, functions return None, and the caller decomposes in float64.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from . import lapack as _lapack
from .arrays import SMALL_MATRIX, Array
from .polar import inverse_root, polar_of_square

_SEEN = 1e-2  # eigenvalues of a Gram matrix, relative to the largest, that float32 tells apart well enough
_LEAST = 1e-5  # singular values, relative to the largest, that a float64 Gram matrix tells from zero
_SAFE = 20  # powers of two between which the largest entry needs no scaling
_FEW = 4  # one over the share of directions that are worth finding again


def leading_triplets(matrix: Array, count: int) -> tuple[Array, Array, Array] | None:
    """The `count` largest singular triplets of a float32 matrix: U (d_out, count), s, V (d_in, count).

    Eigenvectors of the Gram matrix in float32, some more than wanted; then the best in the space that they span. So
    directions are confused with none but those that were left out, whose singular values are further off.
    """
    rank = min(matrix.shape)
    if rank <= SMALL_MATRIX or 3 * count > rank or (narrow := _scaled(matrix)) is None:
        return None
    if matrix.shape[0] < matrix.shape[1]:
        triplets = leading_triplets(matrix.T, count)
        return None if triplets is None else (triplets[2], triplets[1], triplets[0])
    basis = _leading_eigenvectors(narrow.T @ narrow, min(count + max(8, count // 8), rank))
    u, s, v = _best_within(matrix, basis)
    if not float(s[count - 1]) ** 2 > _SEEN * float(s[0]) ** 2:
        return None
    return u[:, :count], s[:count], v[:, :count]


def orthogonal_factor(matrix: Array) -> Array | None:
    """The polar factor P Q^T of a float32 matrix P S Q^T of full rank."""
    rows, columns = matrix.shape
    if min(rows, columns) <= SMALL_MATRIX:
        return None
    if rows < columns:
        factor = orthogonal_factor(matrix.T)
        return None if factor is None else factor.T
    if (scaled := _scaled(matrix)) is None:
        return None
    if is_numpy_array(scaled) and _lapack.has_lapack():
        if rows == columns:
            return polar_of_square(scaled, _LEAST)
        if (root := inverse_root(scaled.T @ scaled, math.sqrt(_SEEN))) is not None:
            return scaled @ root
    xp = array_namespace(scaled)
    values, vectors = eigenvectors(scaled.T @ scaled)
    low = int(xp.sum(xp.astype(values < _SEEN * values[-1], xp.int64)))
    if low * _FEW > columns:
        return None
    high = vectors[:, low:]
    if not low:
        return scaled @ ((high / xp.sqrt(values)) @ high.T)
    wide = xp.astype(scaled, xp.float64)
    u, s, v = _best_within(wide, _separated(wide, vectors[:, :low], high, values[low:]))
    if not float(s[-1]) > _LEAST * math.sqrt(float(values[-1])):
        return None
    u, v = xp.astype(u, xp.float32), xp.astype(v, xp.float32)
    high = high - v @ (v.T @ high)
    return scaled @ ((high / xp.sqrt(values[low:])) @ high.T) + u @ v.T


def eigenvectors(symmetric: Array) -> tuple[Array, Array]:
    """Eigenvalues, smallest first, and eigenvectors, in the dtype of the matrix: float32 if it is."""
    if is_numpy_array(symmetric) and symmetric.dtype == np.float32:
        return _lapack.eigh(symmetric)
    return array_namespace(symmetric).linalg.eigh(symmetric)


def _leading_eigenvectors(symmetric: Array, count: int) -> Array:
    if is_numpy_array(symmetric):
        return _lapack.leading_eigh(symmetric, count)[1]
    return array_namespace(symmetric).linalg.eigh(symmetric)[1][:, -count:]


def _scaled(matrix: Array) -> Array | None:
    """A float32 matrix, times a power of two if squares might vanish or overflow; None for others, and zeros."""
    xp = array_namespace(matrix)
    if matrix.dtype != xp.float32 or not (largest := max(float(xp.max(matrix)), -float(xp.min(matrix)))):
        return None
    power = math.frexp(largest)[1]
    return matrix if abs(power) <= _SAFE else matrix * 2.0**-power


def _best_within(matrix: Array, basis: Array) -> tuple[Array, Array, Array]:
    """Singular triplets, largest first, of a matrix (m, n) within the space of a nearly orthonormal basis (n, c)."""
    xp = array_namespace(matrix)
    basis = xp.astype(basis, matrix.dtype)
    basis = 1.5 * basis - 0.5 * (basis @ (basis.T @ basis))
    image = matrix @ basis
    wide = xp.astype(image, xp.float64, copy=False)
    values, rotation = xp.linalg.eigh(wide.T @ wide)
    s = xp.astype(xp.sqrt(xp.clip(xp.flip(values), min=1e-60)), matrix.dtype)  # the root of less is zero in float32
    rotation = xp.astype(xp.flip(rotation, axis=1), matrix.dtype)
    return (image @ rotation) / s, s, basis @ rotation


def _separated(matrix: Array, low: Array, high: Array, values: Array) -> Array:
    """Low eigenvectors of the Gram matrix, rid of their parts along the high ones, whose eigenvalues are given.

    One step of perturbation theory, with what the Gram matrix in float64 does to the low ones.
    """
    xp = array_namespace(matrix)
    low = xp.astype(low, xp.float64)
    moved = matrix.T @ (matrix @ low)
    inside = low.T @ moved
    off = high.T @ xp.astype(moved - low @ inside, xp.float32)
    gaps = values[:, None] - xp.astype(xp.linalg.diagonal(inside), xp.float32)[None, :]
    least = 0.1 * _SEEN * values[-1]  # nearer ones are as well mixed
    return low - xp.astype(high @ (off / xp.where(gaps > least, gaps, least)), xp.float64)
