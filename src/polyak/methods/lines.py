"""LiNeS with its alpha measured: scale a merge by how much longer its models' sum is, and more along the layers."""

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
    """Scale the first model's delta by alpha, which is measured, plus a beta that may grow along the layers.

    The first model is a merge, by any method (`recipe:`), the others are the T models it was made of. With M the
    merge's delta, tau = (alpha + beta) M and alpha = (|sum_t tau_t|_1 / |M|_1) / T, norms taken over the whole model.

    LiNeS has beta l / (L - 1) in layer l of L and nothing outside the layers: `beta: {gradient: [0, 0.5], outside: 0}`.
    With a number for alpha, `lines:` on a method's `scale` is the same without a pass over the models.

    Departures:
        None known. The authors choose beta on validation data. A merge of no length gives alpha 1 / T.

    Args:
        deltas: (1 + T, *shape); the first is the merge's.
        norms: L1 norms of the sum of the models' deltas, and of the merge's.
        alpha: What tensors outside the layers and the first layer are scaled by; 0 stands for the measured one.
        beta: What is added to alpha.
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
