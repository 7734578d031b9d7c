"""Decompositions of large float32 matrices, against singular value decompositions in float64."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from polyak.linalg import openblas
from polyak.linalg.float32 import SMALL_MATRIX, leading_triplets, orthogonal_factor
from polyak.linalg.spectral import leading, orthogonal
from polyak.methods import load_all, resolve

load_all()

SHAPES = [(180, 160), (160, 180), (400, 150), (150, 400), (170, 170)]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng([1, *shape]).standard_normal(shape, dtype=np.float32)


def of_spectrum(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix with these singular values, and its polar factor without those that are zero."""
    u, v = (np.linalg.qr(random(s.size, s.size + i).astype(np.float64)[:, : s.size])[0] for i in (0, 1))
    return (u * s @ v.T).astype(np.float32), u * (s > 0) @ v.T


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.fixture(params=["NumPy's LAPACK", "another LAPACK"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What NumPy's wheels bring, and what is done without."""
    if request.param == "another LAPACK":
        monkeypatch.setattr(openblas, "_library", lambda: None)
    elif openblas._library() is None:
        pytest.skip("NumPy is not from a wheel")
    openblas.routine.cache_clear()
    yield
    openblas.routine.cache_clear()


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("shape", SHAPES)
def test_factors_and_leading_triplets_are_those_of_the_decomposition(shape: tuple[int, int]):
    matrix = random(*shape)
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    factor, found = orthogonal_factor(matrix), leading_triplets(matrix, 20)
    assert factor is not None
    assert found is not None
    assert error(factor, u @ vt) < 5e-6
    np.testing.assert_allclose(found[1], s[:20], rtol=1e-6)
    assert error(found[0] * found[1] @ found[2].T, u[:, :20] * s[:20] @ vt[:20]) < 2e-5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' wheels may bring other libraries")
def test_numpys_wheels_bring_the_routines_that_are_called():
    if "openblas" not in str(np.show_config("dicts")["Build Dependencies"]["lapack"]["name"]):
        pytest.skip("NumPy was built with another library")
    assert all(openblas.routine(name) for name in ("ssyevd", "ssyevr"))


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("smallest", [1e-2, 1e-3, 1e-4])
def test_directions_far_below_the_first_are_found_again(smallest: float):
    s = np.linspace(1, 0.05, 200)
    s[-3:] = smallest
    matrix, wanted = of_spectrum(s)
    found = orthogonal_factor(matrix)
    assert found is not None
    assert error(found, wanted) < 1e-4 * 1e-4 / smallest + 5e-6


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("rank", [1, 16, 190, 199])
def test_matrices_of_low_rank_are_left_to_float64(rank: int):
    matrix, wanted = of_spectrum(np.where(np.arange(200) < rank, 1.0, 0.0))
    assert orthogonal_factor(matrix) is None
    assert error(orthogonal(matrix), wanted) < 1e-5
    if rank < 20:
        assert leading_triplets(matrix, 20) is None
        assert leading(matrix, 20).s.shape == (rank,)


def test_zeros_small_and_float64_matrices_are_left_to_float64():
    for matrix in (np.zeros((200, 200), np.float32), random(SMALL_MATRIX, 300), random(200, 200).astype(np.float64)):
        assert orthogonal_factor(matrix) is None
        assert leading_triplets(matrix, 10) is None


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**70])
def test_squares_do_not_vanish_or_overflow(scale: float):
    matrix = random(180, 160)
    factor, same = orthogonal_factor(matrix), orthogonal_factor(matrix * np.float32(scale))
    np.testing.assert_array_equal(factor, same)
    found, other = leading_triplets(matrix, 9), leading_triplets(matrix * np.float32(scale), 9)
    assert found is not None
    assert other is not None
    np.testing.assert_array_equal(found[1] * np.float32(scale), other[1])


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "cart", "dc_merge"])
def test_methods_give_in_float32_nearly_what_they_give_in_float64(method: str):
    deltas = 1e-3 * np.stack([random(150, 140 + i)[:, :140] for i in range(4)])
    base = np.zeros_like(deltas[0])
    found = resolve(method)(deltas, base, name="w", weight=[1.0, 0.5, 2.0, 1.0])
    wanted = resolve(method)(deltas.astype(np.float64), base.astype(np.float64), name="w", weight=[1.0, 0.5, 2.0, 1.0])
    assert found.dtype == np.float32
    assert 1e-9 < error(found, wanted) < 3e-5


def test_torch_gives_the_same():
    torch = pytest.importorskip("torch")
    matrix = random(200, 150)
    found = orthogonal_factor(torch.from_numpy(matrix))
    assert error(found.numpy(), orthogonal_factor(matrix)) < 5e-6
    u, s, v = leading_triplets(torch.from_numpy(matrix), 12)
    mine = leading_triplets(matrix, 12)
    assert error((u * s @ v.T).numpy(), mine[0] * mine[1] @ mine[2].T) < 2e-5
