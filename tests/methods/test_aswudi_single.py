"""ASWUDI of float32 matrices, by few eigenvectors, against the same in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from polyak.linalg import lapack as _lapack
from polyak.linalg import openblas
from polyak.methods import load_all, resolve
from polyak.methods._interference import Interference

load_all()
MODULE = sys.modules["polyak.methods.aswudi"]
reduces = pytest.mark.skipif(not _lapack.has_lapack(), reason="NumPy is not from a wheel with OpenBLAS")


def orthogonal(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng([seed, n]).standard_normal((n, n)))[0]


def of_spectrum(s: np.ndarray, tasks: int) -> np.ndarray:
    """Float32 matrices with these singular values and common row vectors."""
    right = orthogonal(s.size, 99)
    return np.stack([orthogonal(s.size, i) * s @ right.T for i in range(tasks)]).astype(np.float32)


def merge(deltas: np.ndarray) -> np.ndarray:
    return resolve("aswudi")(deltas, np.zeros_like(deltas[0]), name="w")


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which ways to the minimum were taken: the function, and how many eigenvectors it was given."""
    taken: list[str] = []

    def spied(name: str) -> Callable[..., np.ndarray]:
        call = getattr(MODULE, name)

        def spy(found: Interference, values: np.ndarray, vectors: np.ndarray, *rest: int) -> np.ndarray:
            taken.append(f"{name} {'all' if vectors.shape[1] == vectors.shape[0] else 'few'}")
            return call(found, values, vectors, *rest)

        return spy

    for name in ("minimum_within", "minimum_without"):
        monkeypatch.setattr(MODULE, name, spied(name))
    return taken


@reduces
@pytest.mark.parametrize(
    ("spectrum", "way"),
    [
        (np.linspace(1, 0.3, 150), "minimum_without few"),
        (np.r_[np.linspace(1, 0.05, 40), np.full(110, 0.012)], "minimum_within few"),
        (np.geomspace(1, 0.03, 150), "minimum_within all"),
    ],
)
def test_every_way_to_the_minimum_gives_what_float64_gives(spectrum: np.ndarray, way: str, ways: list[str]):
    deltas = of_spectrum(spectrum, 3)
    found = merge(deltas)
    assert ways == [way]
    assert 1e-9 < error(found, merge(deltas.astype(np.float64))) < 3e-5


@reduces
@pytest.mark.parametrize("shape", [(8, 160, 140), (8, 140, 160)])
def test_random_matrices_go_by_the_few_eigenvectors_that_are_left_out(shape: tuple[int, ...], ways: list[str]):
    deltas = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    found = merge(deltas)
    assert ways == ["minimum_without few"]
    assert error(found, merge(deltas.astype(np.float64))) < 1e-5


@pytest.mark.parametrize("spectrum", [np.geomspace(1, 1e-3, 150), np.ones(150)])
def test_an_effective_rank_in_doubt_is_decided_in_float64(spectrum: np.ndarray):
    deltas = of_spectrum(spectrum, 2)
    wanted = merge(deltas.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(merge(deltas), wanted, atol=1e-6 * np.abs(wanted).max())


def test_without_numpys_lapack_the_minimum_is_the_same(monkeypatch: pytest.MonkeyPatch, ways: list[str]):
    monkeypatch.setattr(openblas, "_library", lambda: None)
    openblas.routine.cache_clear()
    try:
        assert not _lapack.has_lapack()
        deltas = of_spectrum(np.linspace(1, 0.3, 150), 3)
        found = merge(deltas)
    finally:
        openblas.routine.cache_clear()
    assert ways == ["minimum_within all"]
    assert error(found, merge(deltas.astype(np.float64))) < 3e-5
