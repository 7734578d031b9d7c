"""Polar factors of float32 matrices by way of bidiagonal ones, without singular vectors.

M = Q B P^T with B bidiagonal has the polar factor Q B (B^T B)^(-1/2) P^T, and that of B costs next to nothing: the
root is a sum of inverses of tridiagonal matrices, taken in float64. What is left are two rotations, Q and P. A Gram
matrix M^T M = P T P^T with T tridiagonal serves as well, at a third of the price, for matrices that are well
conditioned: M P T^(-1/2) P^T.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import lapack as _lapack

Matrix = NDArray[np.float32]
Numbers = NDArray[np.float64]
_ERROR = 1e-9  # of a root, relative


class Bidiagonal(NamedTuple):
    """An upper bidiagonal matrix of full rank, and bounds of its singular values' squares.

    Attributes:
        diagonal: (n,).
        beside: (n,); the last is zero.
        least: Below all squares, by little.
        most: Above all squares.
    """

    diagonal: Numbers
    beside: Numbers
    least: float
    most: float

    def root(self) -> Numbers:
        """(B^T B)^(-1/2)."""
        from ..kernels.tridiagonal import sum_of_inverses

        shifts, weights = _inverse_root(self.least, self.most)
        n = self.diagonal.size
        factors, pivots, rows = np.empty((3, shifts.size, n))
        out = np.empty((n, n))
        sum_of_inverses(*_squared(self.diagonal, self.beside), shifts, weights, factors, pivots, rows, out)
        return out


def polar_of_square(matrix: Matrix, least: float) -> Matrix | None:
    """The polar factor of a matrix (n, n); None if a singular value is not above `least`, relative to the largest."""
    from ..kernels.tridiagonal import times

    reduced = _lapack.bidiagonal(matrix.T)  # what is stored by rows is, transposed, stored by columns
    if (bound := bounded(reduced.diagonal, reduced.beside, least)) is None:
        return None
    middle = np.empty(matrix.shape, np.float32)
    times(bound.diagonal, bound.beside, bound.root(), middle)
    return reduced.rotated(middle).T


def inverse_root(gram: Matrix, least: float) -> Matrix | None:
    """G^(-1/2) of a Gram matrix (n, n); None if the root of an eigenvalue is not above `least` of the largest."""
    reduced = _lapack.tridiagonal(gram)
    if (factor := _cholesky(reduced.diagonal, reduced.beside)) is None:
        return None
    bound = bounded(*factor, least)
    return None if bound is None else reduced.rotated(bound.root().astype(np.float32)).T


def bounded(diagonal: Matrix | Numbers, beside: Matrix | Numbers, least: float) -> Bidiagonal | None:
    """A bidiagonal matrix and its bounds; None if one singular value is not above `least`, relative to the largest."""
    from ..kernels.tridiagonal import smallest

    diagonal, beside = diagonal.astype(np.float64), beside.astype(np.float64)
    squares, products = _squared(diagonal, beside)
    most = float(np.max(squares + np.abs(products) + np.abs(np.concatenate(([0.0], products[:-1])))))
    low, out = 0.5 * least**2 * most, np.empty(1)
    if not low > 0:
        return None
    smallest(squares, products, low, most, out)
    return Bidiagonal(diagonal, beside, float(out[0]), most) if out[0] > least**2 * most else None


def _squared(diagonal: Numbers, beside: Numbers) -> tuple[Numbers, Numbers]:
    """B^T B, a tridiagonal matrix: its diagonal and superdiagonal."""
    squares = diagonal**2
    squares[1:] += beside[:-1] ** 2
    return squares, diagonal * beside


def _cholesky(diagonal: Matrix, beside: Matrix) -> tuple[Numbers, Numbers] | None:
    """The bidiagonal B whose B^T B is a tridiagonal matrix; None if that is not positive."""
    squares, products = diagonal.tolist(), beside.tolist()
    roots, others, square = list[float](), list[float](), squares[0]
    for i, product in enumerate(products):
        if not square > 0:
            return None
        roots.append(math.sqrt(square))
        others.append(product / roots[-1])
        square = squares[i + 1] - others[-1] ** 2 if i + 1 < len(squares) else 0.0
    return np.array(roots), np.array(others)


def _inverse_root(least: float, most: float) -> tuple[Numbers, Numbers]:
    """Shifts c and weights w for which sum_p w_p / (x + c_p) is x^(-1/2) for all x from `least` to `most`.

    The integral of (2 / pi) / (t^2 + x) over t, by the midpoint rule after t = sqrt(least) sn(u) / cn(u) (Hale, Higham
    and Trefethen, 2008): as few terms as there can be, up to one.
    """
    modulus = math.sqrt(least / most)  # the complementary one, of which sn and cn are
    whole, other = _quarter_period(modulus), _quarter_period(math.sqrt(1 - least / most) or 1e-300)
    count = max(1, math.ceil(math.log(4 / _ERROR) * whole / (2 * math.pi * other)))
    angles = np.array([_amplitude((i + 0.5) * whole / count, modulus) for i in range(count)])
    tangents = np.tan(angles)
    weights = np.sqrt(1 + (modulus * tangents) ** 2) / np.cos(angles)
    return least * tangents**2, weights * (2 * whole * math.sqrt(least) / (math.pi * count))


def _quarter_period(complement: float) -> float:
    """The complete elliptic integral of the first kind, of the modulus sqrt(1 - complement^2)."""
    return math.pi / 2 / _means(complement)[-1][0]


def _means(complement: float) -> list[tuple[float, float]]:
    """Arithmetic means on the way to the arithmetic-geometric one of 1 and a number, and half of what they differed."""
    a, b = 1.0, complement
    factors = [(a, math.sqrt(1 - b * b))]
    while abs(a - b) > 1e-15 * a:
        a, b, half = (a + b) / 2, math.sqrt(a * b), (a - b) / 2
        factors.append((a, half))
    return factors


def _amplitude(u: float, complement: float) -> float:
    """The angle whose sine and cosine are sn(u) and cn(u), by Landen's transformation."""
    means = _means(complement)
    angle = 2 ** (len(means) - 1) * means[-1][0] * u
    for a, half in reversed(means[1:]):
        angle = (angle + math.asin(half / a * math.sin(angle))) / 2
    return angle
