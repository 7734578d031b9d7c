"""Sums of low-rank products, and the best approximations of matrices by them; in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..linalg import certified_leading, one_thread

Matrix = NDArray[Any]
Doubles = NDArray[np.float64]
_ROUNDING = 1e-14  # of a matrix's energy: what float64 leaves of directions that are not there
_DEPENDENT = 100.0  # condition of scaled columns, a column, from which on their Gram matrix loses digits
_MISSED = 1e-9  # of the energy that is lost anyway: what a certified approximation may lose besides
_LARGE = 256  # rows and columns from which on a full decomposition takes longer than a certified one
_COLUMNS = 1024  # of a matrix that are widened to float64 at a time


@dataclass(frozen=True)
class Term:
    """coefficient * left @ right.

    Attributes:
        coefficient: Factor of the product; its sign goes to one factor only.
        left: (out, r).
        right: (r, in).
    """

    coefficient: float
    left: Matrix
    right: Matrix


@dataclass(frozen=True)
class Limit:
    """Limit on the rank or the lost energy of an approximation.

    Attributes:
        rank: Maximum number of singular values (default: all).
        energy: Keep the fewest with this fraction of the sum of squares (default: as many as `rank` allows).
    """

    rank: int | None = None
    energy: float | None = None

    @property
    def is_open(self) -> bool:
        return self.rank is None and self.energy is None

    def count(self, squares: Doubles) -> int:
        """Number of singular values to keep (at least one), given their squares, largest first."""
        most = min(len(squares), self.rank or len(squares))
        if self.energy is None:
            return most
        total = float(squares.sum())
        beyond = total - np.cumsum(squares)  # lost energy with 1, 2, ... values
        enough = np.flatnonzero(beyond <= (1 - self.energy + _ROUNDING) * total)
        return min(most, int(enough[0]) + 1) if len(enough) else most


@dataclass(frozen=True)
class Factors:
    """left @ right, and its error as an approximation of a matrix.

    Attributes:
        left: (out, r).
        right: (r, in).
        energy: Sum of the squares of that matrix.
        lost: Sum of the squares of the approximation error.
    """

    left: Doubles
    right: Doubles
    energy: float
    lost: float

    @property
    def rank(self) -> int:
        return self.right.shape[0]


def added(terms: Sequence[Term], limit: Limit) -> Factors:
    """The sum of terms in factors: exactly, or its best approximation in the Frobenius norm.

    Without a limit, and if the sum of the ranks is at most the full rank, left = [B_1 ... B_k] and
    right = [c_1 A_1; ...; c_k A_k].  Else, with left = Q R and the eigenvectors U of the core R right right^T R^T (its
    eigenvalues are the squared singular values), the result is (Q U_k) (U_k^T R right), balanced:
    O((out + in) r^2) for ranks that sum to r, and the out x in product is never formed.
    """
    left = np.hstack([np.asarray(term.left, np.float64) for term in terms])
    right = np.vstack([term.coefficient * np.asarray(term.right, np.float64) for term in terms])
    if limit.is_open and right.shape[0] <= min(left.shape[0], right.shape[1]):
        return Factors(left, right, energy(left, right), 0.0)
    if left.shape[0] > right.shape[1]:  # project onto the smaller side
        turned = _truncated(right.T, left.T, limit)
        return Factors(turned.right.T, turned.left.T, turned.energy, turned.lost)
    return _truncated(left, right, limit)


def _truncated(left: Doubles, right: Doubles, limit: Limit) -> Factors:
    with one_thread():
        r, inverse = _triangle(left)
        core = r @ (right @ right.T) @ r.T
        values, vectors = np.linalg.eigh(core)
        squares = np.maximum(values[::-1], 0)
        u = vectors[:, ::-1][:, : limit.count(squares)]
        basis = left @ (inverse @ u) if inverse is not None else np.linalg.qr(left)[0] @ u
        return _balanced(basis, (u.T @ r) @ right, float(np.trace(core)))


def _triangle(left: Doubles) -> tuple[Doubles, Doubles | None]:
    """R of left = Q R, and its inverse if it is well-conditioned.

    If the columns are well-conditioned, R is the Cholesky factor of their Gram matrix, several times as fast as
    Householder reflections and as accurate; otherwise, or with more columns than rows, R is from those.
    """
    sizes = np.sqrt(np.sum(left**2, axis=0))
    if left.shape[1] <= left.shape[0] and sizes.all():
        try:
            r = np.linalg.cholesky((left.T @ left) / np.outer(sizes, sizes)).T
            inverse = np.linalg.inv(r)
        except np.linalg.LinAlgError:
            return np.linalg.qr(left)[1], None
        if np.linalg.norm(r) * np.linalg.norm(inverse) < _DEPENDENT * left.shape[1]:
            return r * sizes, inverse / sizes[:, None]
    return np.linalg.qr(left)[1], None


def _balanced(basis: Doubles, rest: Doubles, total: float) -> Factors:
    """basis @ rest, orthonormal columns times orthogonal rows, with the norms split evenly between both factors."""
    sizes = np.sqrt(np.sum(rest**2, axis=1))
    root = np.sqrt(np.where(sizes > math.sqrt(_ROUNDING * total), sizes, np.inf))
    lost = max(total - float(np.sum(sizes**2)), 0.0)
    factors = basis * np.where(np.isinf(root), 0, root), rest / root[:, None]
    return Factors(*factors, total, lost if lost > _ROUNDING * total else 0.0)


def energy(left: Doubles, right: Doubles) -> float:
    """The sum of the squares of left @ right: <left^T left, right right^T>."""
    with one_thread():
        return max(float(np.sum((left.T @ left) * (right @ right.T))), 0.0)


def averaged_apart(terms: Sequence[Term], scalings: Sequence[float]) -> Factors:
    """The product of sums, which is not the sum of products: (sum_i c_i B_i) (sum_i c_i s_i A_i).

    `energy` and `lost` compare it with the sum of products, sum_i c_i s_i B_i A_i.
    """
    pairs = list(zip(terms, scalings, strict=True))
    left: Doubles = np.sum([t.coefficient * np.asarray(t.left, np.float64) for t in terms], axis=0)
    right: Doubles = np.sum([t.coefficient * s * np.asarray(t.right, np.float64) for t, s in pairs], axis=0)
    exact = added([Term(t.coefficient * s, t.left, t.right) for t, s in pairs], Limit())
    apart = added([Term(1.0, left, right), Term(-1.0, exact.left, exact.right)], Limit())
    return Factors(left, right, exact.energy, apart.energy)


def factorised(matrix: Matrix, limit: Limit) -> Factors:
    """The best approximation of a matrix (out, in) within a limit, by the eigenvectors of its smaller Gram matrix.

    With M M^T = U L U^T, the result is U_k (U_k^T M), balanced.  Squaring loses digits of small singular values,
    but the lost energy stays within about 1e-14 of the minimum, relative to the total.
    """
    return _by_gram(matrix, lambda gram: _leading(gram, limit))


def almost_best(matrix: Matrix, limit: Limit) -> Factors:
    """An approximation that loses at most 1 + 1e-9 times the least energy within a limit, plus 1e-13 of the total.

    With a rank and no energy, and matrices of at least 256 rows and columns, the eigenvectors come from float32
    with a certificate of this; they are those of `factorised` otherwise, or if it fails.
    """
    if limit.rank is None or limit.energy is not None or min(matrix.shape) < _LARGE:
        return factorised(matrix, limit)
    return _by_gram(matrix, lambda gram: _certified(gram, limit))


def _leading(gram: Doubles, limit: Limit) -> Doubles:
    values, vectors = np.linalg.eigh(gram)
    squares = np.maximum(values[::-1], 0)
    return np.ascontiguousarray(vectors[:, ::-1][:, : limit.count(squares)])


def _certified(gram: Doubles, limit: Limit) -> Doubles:
    assert limit.rank is not None
    basis = certified_leading(gram, limit.rank, _MISSED)
    return _leading(gram, limit) if basis is None else basis


def _by_gram(matrix: Matrix, basis_of: Callable[[Doubles], Doubles]) -> Factors:
    """U (U^T M), or its transpose, with U from the smaller Gram matrix."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    with one_thread():
        gram = np.zeros((wide.shape[0],) * 2)
        for part in _parts(wide):
            gram += part @ part.T
        u = basis_of(gram)
        v = np.hstack([u.T @ part for part in _parts(wide)])
    factors = _balanced(u, v, float(np.trace(gram)))
    return factors if wide is matrix else Factors(factors.right.T, factors.left.T, factors.energy, factors.lost)


def _parts(matrix: Matrix) -> Iterator[Doubles]:
    for start in range(0, matrix.shape[1], _COLUMNS):
        yield matrix[:, start : start + _COLUMNS].astype(np.float64)
