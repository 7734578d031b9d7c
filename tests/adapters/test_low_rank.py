"""Sums of products in factors, against float64 matrices."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.adapters.low_rank import Factors, Limit, Term, added, almost_best, averaged_apart, factorised

RNG = np.random.default_rng(0)
SIZES = [(40, 30), (30, 40), (9, 200), (200, 9), (1, 5), (5, 1), (1, 1)]


def terms(rows: int, columns: int, ranks: tuple[int, ...] = (3, 1, 4)) -> list[Term]:
    weights = (1.5, -0.7, 0.2, 1.0, -2.0)
    return [
        Term(weights[i % 5], RNG.normal(size=(rows, r)), RNG.normal(size=(r, columns))) for i, r in enumerate(ranks)
    ]


def product(of: Factors) -> np.ndarray:
    return of.left @ of.right


def total(of: list[Term]) -> np.ndarray:
    return sum(t.coefficient * t.left @ t.right for t in of)


def assert_close(found, wanted, limit=1e-12):
    assert np.abs(found - wanted).max() <= limit * max(np.abs(wanted).max(), 1e-300)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", [Limit(), Limit(rank=10**6), Limit(energy=1.0)], ids=str)
def test_a_sum_without_loss_is_the_sum(size, limit):
    given = terms(*size)
    found = added(given, limit)
    assert_close(product(found), total(given))
    assert found.lost <= 1e-12 * found.energy
    assert found.energy == pytest.approx(np.sum(total(given) ** 2), rel=1e-12)


def test_concatenation_keeps_the_factors_and_puts_the_sign_on_one_of_them():
    [one] = terms(6, 5, (2,))
    found = added([Term(-3.0, one.left, one.right)], Limit())
    np.testing.assert_array_equal(found.left, one.left)
    np.testing.assert_array_equal(found.right, -3.0 * one.right)


def test_ranks_that_sum_to_more_than_the_matrix_can_have_are_reduced_without_loss():
    given = terms(7, 50, (4, 4, 4))
    found = added(given, Limit())
    assert found.rank == 7
    assert_close(product(found), total(given))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("way", ["factors", "matrix"])
def test_a_truncation_is_the_best_there_is(size, rank, way):
    given = terms(*size)
    matrix = total(given)
    found = added(given, Limit(rank=rank)) if way == "factors" else factorised(matrix, Limit(rank=rank))
    s = np.linalg.svd(matrix, compute_uv=False)
    assert found.rank == min(rank, len(s), 8 if way == "factors" else len(s))
    assert np.sum((matrix - product(found)) ** 2) == pytest.approx(np.sum(s[rank:] ** 2), abs=1e-11 * np.sum(s**2))
    assert found.lost == pytest.approx(np.sum(s[rank:] ** 2), abs=1e-11 * np.sum(s**2))
    assert found.energy == pytest.approx(np.sum(s**2), rel=1e-11)


@pytest.mark.parametrize("way", ["factors", "matrix"])
def test_energy_takes_the_fewest_values_that_hold_it(way):
    left, right = np.linalg.qr(RNG.normal(size=(20, 4)))[0], np.linalg.qr(RNG.normal(size=(30, 4)))[0].T
    s = np.array([4.0, 2.0, 1.0, 0.5])  # squares 16, 4, 1, 0.25 of 21.25
    given = [Term(1.0, left * s, right)]
    for share, rank in [(0.1, 1), (16 / 21.25, 1), (0.76, 2), (20 / 21.25, 2), (0.99, 4), (1.0, 4)]:
        limit = Limit(energy=share)
        found = added(given, limit) if way == "factors" else factorised(total(given), limit)
        assert found.rank == rank, share
    assert added(given, Limit(rank=3, energy=1.0)).rank == 3


def test_factors_share_the_singular_values_evenly():
    found = factorised(total(terms(20, 30)), Limit(rank=4))
    assert_close(np.sum(found.left**2, axis=0), np.sum(found.right**2, axis=1))


@pytest.mark.parametrize("limit", [Limit(), Limit(rank=2), Limit(energy=0.9)], ids=str)
def test_nothing_stays_nothing(limit):
    zero = [Term(1.0, np.zeros((6, 2)), np.ones((2, 5)))]
    for found in (added(zero, limit), factorised(np.zeros((6, 5), np.float32), limit)):
        assert found.rank >= 1
        assert not product(found).any()
        assert (found.energy, found.lost) == (0, 0)


def test_terms_that_cancel_leave_nothing_but_rounding():
    [one] = terms(6, 5, (2,))
    found = added([one, Term(-one.coefficient, one.left, one.right)], Limit(rank=1))
    assert np.abs(product(found)).max() < 1e-14


def test_averages_of_factors_come_with_their_error_against_the_average_of_products():
    given = [Term(0.5, t.left, t.right) for t in terms(8, 6, (2, 2))]
    found = averaged_apart(given, [2.0, 3.0])
    exact = 0.5 * (2 * given[0].left @ given[0].right + 3 * given[1].left @ given[1].right)
    apart = (0.5 * (given[0].left + given[1].left)) @ (0.5 * (2 * given[0].right + 3 * given[1].right))
    assert_close(product(found), apart)
    assert found.energy == pytest.approx(np.sum(exact**2))
    assert found.lost == pytest.approx(np.sum((apart - exact) ** 2))
    assert found.lost > 0.1 * found.energy


SPECTRA = {
    "flat": np.ones,
    "slow": lambda n: 1 / np.sqrt(1 + np.arange(n)),
    "fast": lambda n: np.exp(-np.arange(n) / 5),
    "low rank": lambda n: np.where(np.arange(n) < 8, 1.0, 0.0),
    "low rank and noise": lambda n: np.where(np.arange(n) < 16, 1.0, 1e-4),
    "equal at the cut": lambda n: np.where(np.arange(n) < 40, 1.0, 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", [(300, 400), (400, 300)])
def test_certified_approximations_lose_what_an_svd_in_float64_loses(spectrum: str, shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    matrix = ((u * SPECTRA[spectrum](min(shape))) @ v).astype(np.float32)
    squares = np.linalg.svd(matrix.astype(np.float64), compute_uv=False) ** 2
    least, total = float(squares[16:].sum()), float(squares.sum())
    got = almost_best(matrix, Limit(rank=16))
    lost = float(np.sum((matrix.astype(np.float64) - got.left @ got.right) ** 2))
    assert got.left.shape == (shape[0], 16)
    assert lost <= least * (1 + 1e-9) + 1e-12 * total
    assert abs(got.lost - lost) <= 1e-12 * total


def test_a_certificate_rejects_a_basis_that_misses_a_direction(monkeypatch):
    from polyak.linalg import certified

    rng = np.random.default_rng(0)
    half = rng.standard_normal((300, 300)) * np.exp(-np.arange(300) / 50)
    gram = half @ half.T
    _, vectors = np.linalg.eigh(gram)
    wrong = vectors[:, ::-1][:, 1:25]  # without the first eigenvector: every coupling is zero
    monkeypatch.setattr(certified, "leading_eigh", lambda symmetric, count: (None, wrong.astype(np.float32)))
    monkeypatch.setattr(certified, "_iterated", lambda gram, basis: wrong)
    assert certified.certified_leading(gram, 16, 1e-3) is None


def test_certified_approximations_are_the_same_each_time():
    matrix = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    first, second = (almost_best(matrix, Limit(rank=16)) for _ in range(2))
    assert first.left.tobytes() == second.left.tobytes()
    assert first.right.tobytes() == second.right.tobytes()
