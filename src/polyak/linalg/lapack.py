"""Eigenvalues and condensed forms of float32 matrices, by LAPACK where NumPy brings it, else by NumPy in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .openblas import routine

Matrix = NDArray[np.float32]
_REDUCING = ("ssytrd", "sormtr", "dsterf", "sstemr", "sgebrd", "sormbr", "sposv")
_BLOCK = 64  # columns that LAPACK treats at a time, for the sizes of its workspaces


def eigh(symmetric: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues (n,), smallest first, and eigenvectors (n, n) of a symmetric matrix."""
    n = symmetric.shape[0]
    if (call := routine("ssyevd")) is None:
        return _in_float64(symmetric)
    vectors = np.array(symmetric, np.float32, order="F")
    values, work = np.empty(n, np.float32), np.empty(1 + 6 * n + 2 * n * n, np.float32)
    integers = np.empty(3 + 5 * n, np.int64)
    status = call("V", "L", n, vectors, n, values, work, work.size, integers, integers.size)
    return _in_float64(symmetric) if status else (values, vectors)


def leading_eigh(symmetric: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """The `count` largest eigenvalues (count,), smallest first, and their eigenvectors (n, count)."""
    n = symmetric.shape[0]
    call = routine("ssyevr")
    values, vectors = np.empty(n, np.float32), np.empty((n, count), np.float32, order="F")
    status, converged = 1, np.zeros(1, np.int64)
    if call is not None:
        destroyed, work = np.array(symmetric, np.float32, order="F"), np.empty((_BLOCK + 6) * n, np.float32)
        support, integers = np.empty(2 * n, np.int64), np.empty(10 * n, np.int64)
        status = call(
            *("V", "I", "L", n, destroyed, n, 0.0, 0.0, n - count + 1, n, 0.0, converged, values, vectors, n, support),
            *(work, work.size, integers, integers.size),
        )
    if status or converged[0] != count:
        values, vectors = _in_float64(symmetric)
        return values[-count:], vectors[:, -count:]
    return values[:count], vectors


def has_lapack() -> bool:
    """Tell whether NumPy brings the LAPACK routines that reduce matrices to condensed form."""
    return all(routine(name) is not None for name in _REDUCING)


class Tridiagonal(NamedTuple):
    """P T P^T with T tridiagonal.

    Attributes:
        diagonal: (n,).
        beside: (n,); the last is zero.
        reflections: (n, n), of P; in addition to the rest of T.
        scales: (n,), of the reflections.
    """

    diagonal: Matrix
    beside: Matrix
    reflections: Matrix
    scales: Matrix

    def rotated(self, middle: Matrix) -> Matrix:
        """P X P^T; `middle` is overwritten."""
        return self._turned("R", "T", self._turned("L", "N", _by_columns(middle)))

    def _turned(self, side: str, kind: str, matrix: Matrix) -> Matrix:
        n, (rows, columns) = self.diagonal.size, matrix.shape
        work = np.empty(_BLOCK * max(rows, columns), np.float32)
        passed = (rows, columns, self.reflections, n, self.scales, matrix, rows, work, work.size)
        _checked("sormtr", side, "L", kind, *passed)
        return matrix

    def eigenvalues(self) -> NDArray[np.float64]:
        """All, smallest first: (n,)."""
        values, beside = self.diagonal.astype(np.float64), self.beside.astype(np.float64)
        _checked("dsterf", values.size, values, beside)
        return values

    def eigenvectors(self, first: int, last: int) -> Matrix:
        """Eigenvectors of P T P^T for the eigenvalues [first, last): (n, last - first)."""
        n, count = self.diagonal.size, last - first
        vectors = np.empty((n, count), np.float32, order="F")
        support, integers = np.empty(2 * max(1, count), np.int64), np.empty(10 * n, np.int64)
        values, work = np.empty(n, np.float32), np.empty(18 * n, np.float32)
        converged, relatively = np.ones(1, np.int64), np.ones(1, np.int64)
        passed = (
            self.diagonal.copy(),
            self.beside.copy(),
            0.0,
            0.0,
            first + 1,
            last,
            converged,
            values,
            vectors,
            n,
            count,
        )
        rest = (support, relatively, work, work.size, integers, integers.size)
        _checked("sstemr", "V", "I", n, *passed, *rest)
        return self._turned("L", "N", vectors)


def tridiagonal(symmetric: Matrix) -> Tridiagonal:
    """The tridiagonal form of a symmetric matrix, if `has_lapack()`."""
    n = symmetric.shape[0]
    reflections = np.array(symmetric, np.float32, order="F")
    diagonal, beside, scales = (np.zeros(n, np.float32) for _ in range(3))
    work = np.empty(_BLOCK * n, np.float32)
    _checked("ssytrd", "L", n, reflections, n, diagonal, beside, scales, work, work.size)
    return Tridiagonal(diagonal, beside, reflections, scales)


class Reduced(NamedTuple):
    """Q B P^T with B upper bidiagonal.

    Attributes:
        diagonal: (n,).
        beside: (n,); the last is zero.
        reflections: (n, n), of Q below the diagonal and of P above it.
        left: (n,), scales of Q's reflections.
        right: (n,), of P's.
    """

    diagonal: Matrix
    beside: Matrix
    reflections: Matrix
    left: Matrix
    right: Matrix

    def rotated(self, middle: Matrix) -> Matrix:
        """Q X P^T; `middle` may be overwritten."""
        n, product = self.diagonal.size, _by_columns(middle)
        work = np.empty(_BLOCK * n, np.float32)
        for which, side, kind, scales in (("Q", "L", "N", self.left), ("P", "R", "T", self.right)):
            passed = (n, n, n, self.reflections, n, scales, product, n, work, work.size)
            _checked("sormbr", which, side, kind, *passed)
        return product


def bidiagonal(matrix: Matrix) -> Reduced:
    """The bidiagonal form of a matrix (n, n), if `has_lapack()`."""
    n = matrix.shape[0]
    reflections = np.array(matrix, np.float32, order="F")
    diagonal, beside, left, right = (np.zeros(n, np.float32) for _ in range(4))
    work = np.empty(2 * _BLOCK * n, np.float32)
    _checked("sgebrd", n, n, reflections, n, diagonal, beside, left, right, work, work.size)
    return Reduced(diagonal, beside, reflections, left, right)


def divided(right: Matrix, positive: Matrix) -> Matrix:
    """X in X A = B: B (m, n) over a positive matrix A (n, n), by Cholesky's factors, if `has_lapack()`."""
    solution, factor, (m, n) = np.array(right, np.float32), np.array(positive, np.float32), right.shape
    _checked("sposv", "L", n, m, factor, n, solution, n)  # which sees the transpose of what is stored by rows
    return solution


def _by_columns(matrix: Matrix) -> Matrix:
    return np.asfortranarray(matrix, np.float32)


def _checked(name: str, *arguments: Any) -> None:
    """Call a routine that fails for wrong arguments alone."""
    call = routine(name)
    assert call is not None
    status = call(*arguments)
    assert not status, f"{name} returned {status}"


def _in_float64(symmetric: Matrix) -> tuple[Matrix, Matrix]:
    values, vectors = np.linalg.eigh(symmetric.astype(np.float64))
    return values.astype(np.float32), vectors.astype(np.float32)
