"""LiNeS with measured alpha."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, In, Law, method
from ._passes import Sum


def _norms(alpha: float) -> Sum | None:
    return None if alpha else Sum(_both, scope="model", kernel=_both_of_tile)


def _both(deltas: Array) -> Array:
    xp = array_namespace(deltas)
    return xp.abs(xp.stack([xp.sum(deltas[1:, ...], axis=0), deltas[0, ...]]))


@method(
    "lines",
    source="Wang et al., 2025. LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging. "
    "arXiv:2410.17146",
    models=(2, None),
    laws={Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def lines(
    deltas: Deltas,
    norms: Annotated[Array | None, FirstPass(_norms)],
    *,
    alpha: Annotated[float, In(0, float("inf"))] = 0.0,
    beta: Annotated[float, In(0, float("inf"))] = 0.0,
) -> Delta:
    """Scale the first model's task vector by a measured alpha, plus a beta that may grow with depth.

    The first model is a merge, by any method (`recipe:`), the others are the T models that were merged. With M the
    merge's task vector, tau = (alpha + beta) M and alpha = (|sum_t tau_t|_1 / |M|_1) / T, norms taken over the whole
    model.

    LiNeS has beta l / (L - 1) in layer l of L and nothing outside the layers: `beta: {gradient: [0, 0.5], outside: 0}`.
    If alpha is given, `lines:` on a method's `scale` does the same without a pass over the models.

    Departures:
        None known. The authors choose beta on validation data. If the merge is zero, alpha is 1 / T.

    Args:
        deltas: (1 + T, *shape); the first is that of the merge.
        norms: L1 norms of the sum of the models' task vectors, and of the merge's.
        alpha: Scale of the first layer and of tensors outside the layers; 0: the measured value.
        beta: Increment of alpha, usually a gradient over the layers.
    """
    return (_alpha(norms, deltas.shape[0] - 1, alpha) + beta) * deltas[0, ...]


def _alpha(norms: Array | None, models: int, alpha: float) -> float:
    if norms is None:
        return alpha
    return (float(norms[0]) / float(norms[1]) if norms[1] else 1.0) / models


def _both_of_tile(deltas: Any) -> Any:
    import numpy as np

    return np.stack([np.abs(deltas[1:].sum(axis=0)), np.abs(deltas[0])]).sum(axis=1, dtype=np.float64)


@lines.kernel
def _kernel(out: Any, deltas: Any, norms: Any, alpha: float, beta: float) -> None:
    import numpy as np

    np.multiply(deltas[0], np.float32(_alpha(norms, len(deltas) - 1, alpha) + beta), out=out)
