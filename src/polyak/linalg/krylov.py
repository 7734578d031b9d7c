"""The leading eigenvectors of a Gram matrix by a block Krylov method, with a bound on the energy that they miss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]

_EXTRA = 8  # columns of a block beyond those that are wanted
_CHECKED = (4, 6, 8, 10, 12)  # blocks of the basis at which the bound is tried
_SEED = 0
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
        U, or None if no basis of at most half the size of G meets the bound: a full decomposition is as fast then.

    Source: Musco and Musco, 2015. Randomized Block Krylov Methods. arXiv:1504.05477 (the basis)
    """
    scale = float(np.trace(gram))
    if not scale > 0 or not np.isfinite(scale):
        return None
    unit = gram / scale
    for basis in _bases(unit.astype(np.float32), count + _EXTRA):
        leading = _refined(unit, basis, count)
        if _is_certified(unit, leading, share):
            return leading
    return None


def _bases(gram: Singles, block: int) -> Iterator[Doubles]:
    """Growing approximations of the leading eigenspace, of `block` columns each."""
    size = len(gram)
    start = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((size, block), np.float32)
    basis = latest = np.linalg.qr(start)[0]
    image = gram @ latest
    for blocks in range(2, _CHECKED[-1] + 1):
        if blocks * block > size // 2:
            return
        latest = _orthogonal(image[:, -block:], basis)
        basis = np.hstack([basis, latest])
        image = np.hstack([image, gram @ latest])
        if blocks in _CHECKED:
            _, vectors = np.linalg.eigh(basis.T @ image)
            yield (basis @ vectors[:, -block:]).astype(np.float64)


def _orthogonal(columns: Singles, basis: Singles) -> Singles:
    for _ in range(2):  # once loses digits where little is left
        columns = np.linalg.qr(columns - basis @ (basis.T @ columns))[0]
    return columns


def _refined(gram: Doubles, basis: Doubles, count: int) -> Doubles:
    """One step of subspace iteration in float64, and the best `count` columns of the result."""
    basis = np.linalg.qr(gram @ basis)[0]
    _, vectors = np.linalg.eigh(basis.T @ gram @ basis)
    return np.linalg.qr(basis @ vectors[:, ::-1][:, :count])[0]


def _is_certified(gram: Doubles, leading: Doubles, share: float) -> bool:
    image = gram @ leading
    core = leading.T @ image
    coupling = float(np.sum((image - leading @ core) ** 2))
    missed = max(share * (1 - float(np.trace(core))), _INVISIBLE)
    least, gap = float(np.linalg.eigvalsh(core)[0]), max(coupling / missed, _INVISIBLE)
    if gap >= least:
        return False
    # (I - U U^T) G (I - U U^T) = G - U R^T - R U^T, with R = G U - U core / 2
    rest = image - leading @ (core / 2)
    deflated = leading @ rest.T
    bounded = (least - gap) * np.eye(len(gram)) - gram + deflated + deflated.T
    try:
        np.linalg.cholesky(bounded)
    except np.linalg.LinAlgError:
        return False
    return True
