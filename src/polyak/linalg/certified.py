"""The leading eigenvectors of a Gram matrix, from float32, with a bound on the energy that they miss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .lapack import leading_eigh

Doubles = NDArray[np.float64]

_EXTRA = 8  # eigenvectors beyond those that are wanted, so that iterations converge faster
_ITERATIONS = 3  # of subspace iteration in float64, each of which is cheap next to the eigenvectors
_INVISIBLE = 1e-13  # of the trace: energy that rounding in float64 hides


def certified_leading(gram: Doubles, count: int, share: float) -> Doubles | None:
    """Orthonormal columns U that hold almost as much of the energy of a Gram matrix G as any `count` columns can.

    The best columns hold at most `share` of tr G - tr(U^T G U), or 1e-13 of tr G, more.  With U^T G U >= theta,
    coupling E = (I - U U^T) G U and (I - U U^T) G (I - U U^T) < theta - delta, that excess is at most |E|_F^2 / delta;
    the inequality is tested by a Cholesky factorisation in float64, so that a wrong basis cannot pass.

    Args:
        gram: G, symmetric and positive semidefinite.
        count: Number of columns.
        share: See above.

    Returns:
        U; None if eigenvectors in float32 and a few iterations in float64 do not meet the bound, such as if eigenvalue
        `count` is equal to the next one.

    Source: the bound follows from Fan, 1949. On a Theorem of Weyl Concerning Eigenvalues of Linear Transformations I.
    """
    scale = float(np.trace(gram))
    if not scale > 0 or not np.isfinite(scale) or count + _EXTRA > len(gram):
        return None
    unit = gram / scale
    basis = leading_eigh(unit.astype(np.float32), count + _EXTRA)[1].astype(np.float64)
    for _ in range(_ITERATIONS):
        basis = _iterated(unit, basis)
        leading = np.ascontiguousarray(basis[:, :count])
        if _is_certified(unit, leading, share):
            return leading
    return None


def _iterated(gram: Doubles, basis: Doubles) -> Doubles:
    """One step of subspace iteration: orthonormal columns, the best ones first."""
    basis = np.linalg.qr(gram @ basis)[0]
    _, vectors = np.linalg.eigh(basis.T @ gram @ basis)
    return np.linalg.qr(basis @ vectors[:, ::-1])[0]


def _is_certified(gram: Doubles, leading: Doubles, share: float) -> bool:
    image = gram @ leading
    core = leading.T @ image
    coupling = float(np.sum((image - leading @ core) ** 2))
    missed = max(share * (1 - float(np.trace(core))), _INVISIBLE)
    least, gap = float(np.linalg.eigvalsh(core)[0]), max(coupling / missed, _INVISIBLE)
    if gap >= least:
        return False
    # (I - U U^T) G (I - U U^T) = G - U R^T - R U^T, with R = G U - U core / 2
    deflated = leading @ (image - leading @ (core / 2)).T
    try:
        np.linalg.cholesky((least - gap) * np.eye(len(gram)) - gram + deflated + deflated.T)
    except np.linalg.LinAlgError:
        return False
    return True
