"""Polar factors by way of bidiagonal matrices, and the functions of tridiagonal ones, against dense decompositions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polyak.kernels.tridiagonal import smallest, sum_of_inverses, times
from polyak.linalg import lapack as _lapack
from polyak.linalg.polar import _cholesky, _inverse_root, bounded, inverse_root, polar_of_square

reduces = pytest.mark.skipif(not _lapack.has_lapack(), reason="NumPy is not from a wheel with OpenBLAS")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def positive(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A tridiagonal matrix without negative eigenvalues: its diagonal and what is beside it."""
    diagonal, beside = 1 + random(n) ** 2, random(n, seed=1)
    diagonal[1:] += beside[:-1] ** 2
    beside[-1] = 0
    return diagonal, beside


def dense(diagonal: np.ndarray, beside: np.ndarray) -> np.ndarray:
    return np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)


def of_spectrum(s: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix with these singular values, and its polar factor."""
    u, v = (np.linalg.qr(random(n, s.size, seed=n))[0] for n in (rows, s.size))
    matrix = (u * s @ v.T).astype(np.float32)
    p, _, qt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return matrix, p @ qt


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_sums_of_inverses_are_those_of_the_dense_matrix(n: int):
    diagonal, beside = positive(n)
    shifts, weights = np.array([0.0, 0.3, 5.0]), np.array([0.5, 2.0, -1.0])
    out = np.full((n, n), np.nan)
    sum_of_inverses(diagonal, beside, shifts, weights, *np.full((3, 3, n), np.nan), out)
    wanted = sum(
        w * np.linalg.inv(dense(diagonal, beside) + c * np.eye(n)) for c, w in zip(shifts, weights, strict=True)
    )
    np.testing.assert_allclose(out, wanted, rtol=1e-9, atol=1e-12)


def test_far_entries_of_an_inverse_are_zero_rather_than_too_small_for_float32():
    out, n = np.empty((300, 300)), 300
    sum_of_inverses(np.full(n, 4.0), np.ones(n), np.zeros(1), np.ones(1), *np.empty((3, 1, n)), out)
    assert out[0, 40] != 0
    assert out[0, 299] == 0
    assert np.abs(out[out != 0]).min() > np.finfo(np.float32).tiny


def test_the_smallest_eigenvalue_is_bounded_from_below_by_little():
    diagonal, beside = positive(50)
    wanted, out = np.linalg.eigvalsh(dense(diagonal, beside))[0], np.empty(1)
    smallest(diagonal, beside, 1e-9, 1e3, out)
    assert 0.98 * wanted < out[0] < wanted


def test_the_product_with_a_bidiagonal_matrix_is_that_of_the_dense_one():
    diagonal, beside, right = random(9), random(9, seed=1), random(9, 9)
    out = np.empty((9, 9), np.float32)
    times(diagonal, beside, right, out)
    np.testing.assert_allclose(out, (np.diag(diagonal) + np.diag(beside[:-1], 1)) @ right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("least", [1.0, 0.5, 1e-2, 1e-6, 1e-10])
@pytest.mark.parametrize("most", [1.0, 3e7])
def test_few_shifted_inverses_make_the_inverse_root_of_every_number_between(least: float, most: float):
    shifts, weights = _inverse_root(least * most, most)
    x = np.geomspace(least, 1, 3001) * most
    found = (weights / (x[:, None] + shifts)).sum(axis=1)
    assert np.abs(found * np.sqrt(x) - 1).max() < 2e-9
    assert len(shifts) <= 30


def test_bounds_hold_all_squares_of_singular_values():
    diagonal, beside = 1 + random(40) ** 2, random(40, seed=1)
    s = np.linalg.svd(np.diag(diagonal) + np.diag(beside[:-1], 1))[1]
    found = bounded(diagonal, beside * (np.arange(40) < 39), 1e-5)
    assert found is not None
    assert 0.98 * s[-1] ** 2 < found.least < s[-1] ** 2
    assert s[0] ** 2 < found.most < 3 * s[0] ** 2
    assert bounded(diagonal, beside * (np.arange(40) < 39), 1.01 * s[-1] / s[0]) is None


def test_a_tridiagonal_matrix_has_a_bidiagonal_root_unless_it_is_not_positive():
    diagonal, beside = positive(12)
    found = _cholesky(diagonal, beside)
    assert found is not None
    root = np.diag(found[0]) + np.diag(found[1][:-1], 1)
    np.testing.assert_allclose(root.T @ root, dense(diagonal, beside), atol=1e-12)
    assert _cholesky(-diagonal, beside) is None
    assert _cholesky(np.zeros(4), np.zeros(4)) is None


@reduces
@pytest.mark.parametrize("smallest", [0.5, 1e-1, 1e-3])
@pytest.mark.parametrize("n", [2, 31, 150])
def test_polar_factors_of_square_matrices_are_those_of_the_decomposition(n: int, smallest: float):
    matrix, wanted = of_spectrum(np.geomspace(1, smallest, n), n)
    found = polar_of_square(matrix, 1e-5)
    assert found is not None
    assert found.flags.c_contiguous
    assert error(found, wanted) < 3e-6 + 1e-7 / smallest


@reduces
@pytest.mark.parametrize("zeros", [1, 100])
def test_square_matrices_of_low_rank_have_no_polar_factor_here(zeros: int):
    s = np.linspace(1, 0.5, 150)
    s[-zeros:] = 0
    assert polar_of_square(of_spectrum(s, 150)[0], 1e-5) is None
    assert polar_of_square(np.zeros((150, 150), np.float32), 1e-5) is None


@reduces
def test_inverse_roots_of_grams_are_exact_where_they_are_well_conditioned_and_refused_else():
    matrix, wanted = of_spectrum(np.geomspace(1, 0.2, 90), 140)
    root = inverse_root(matrix.T @ matrix, 0.1)
    assert root is not None
    assert error(matrix @ root, wanted) < 3e-6
    assert inverse_root(matrix.T @ matrix, 0.21) is None
    assert inverse_root(matrix @ matrix.T, 0.1) is None  # of rank 90


@reduces
def test_reduced_matrices_turn_back_into_what_they_were():
    matrix = random(70, 70).astype(np.float32)
    found = _lapack.bidiagonal(matrix)
    middle = np.diag(found.diagonal) + np.diag(found.beside[:-1], 1)
    assert found.beside[-1] == 0
    assert error(found.rotated(middle), matrix) < 1e-6
    symmetric = matrix + matrix.T
    turned = _lapack.tridiagonal(symmetric)
    assert error(turned.rotated(dense(turned.diagonal, turned.beside).astype(np.float32)), symmetric) < 1e-6


@reduces
def test_scaling_a_matrix_by_a_power_of_two_changes_no_bit_of_its_polar_factor():
    matrix = random(64, 64).astype(np.float32)
    np.testing.assert_array_equal(polar_of_square(matrix, 1e-5), polar_of_square(matrix * math.ldexp(1, 4), 1e-5))


@reduces
@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 9), (131, 150), (0, 150)])
def test_some_eigenvectors_are_those_of_the_decomposition(first: int, last: int):
    matrix = random(400, 150).astype(np.float32)
    gram = matrix.T @ matrix
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    reduced = _lapack.tridiagonal(gram)
    np.testing.assert_allclose(reduced.eigenvalues(), values, rtol=3e-6)
    found = reduced.eigenvectors(first, last)
    wanted = vectors[:, first:last] @ vectors[:, first:last].T
    assert found.shape == (150, last - first)
    assert error(found @ found.T, wanted) < 1e-3 / math.sqrt(last - first)


@reduces
def test_dividing_by_a_positive_matrix_solves_for_rows():
    half, right = random(80, 50).astype(np.float32), random(30, 50).astype(np.float32)
    positive, kept = half.T @ half, right.copy()
    assert error(_lapack.divided(right, positive) @ positive, right) < 1e-5
    np.testing.assert_array_equal(right, kept)
