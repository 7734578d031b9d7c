"""Our exponential and tangent against float64."""

from __future__ import annotations

import numpy as np

from polyak.kernels.exp_tanh import exp, tanh
from polyak.native import kernel


@kernel
def _both(x, e, t):
    for i in range(x.size):
        e[i] = exp(x[i])
        t[i] = tanh(x[i])


def both(x) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, np.float32)
    e, t = np.empty_like(x), np.empty_like(x)
    _both(x, e, t)
    return e, t


def test_both_are_exact_to_a_few_units_in_the_last_place():
    x = np.concatenate([np.linspace(-86, 86, 200_001), np.linspace(-1, 1, 200_001), np.geomspace(1e-37, 80, 100_001)])
    x = x.astype(np.float32)
    e, t = both(np.concatenate([x, -x]))
    exact = np.concatenate([x, -x]).astype(np.float64)
    np.testing.assert_allclose(e, np.exp(exact), rtol=3e-7)
    np.testing.assert_allclose(t, np.tanh(exact), rtol=4e-7, atol=1e-38)


def test_ends_and_zero():
    e, t = both([0, -1000, np.inf, -np.inf, 1000, -0.0])
    assert e[0] == e[5] == 1 and 0 <= e[1] < 1e-37 and 0 <= e[3] < 1e-37
    assert np.isfinite(e).all()
    assert t.tolist() == [0, -1, 1, -1, 1, 0]
