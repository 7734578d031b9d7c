"""RegMean: least squares on each model's layer inputs."""

from __future__ import annotations

from typing import Annotated

from . import Array, Fraction, In, Law, Merged, PerModel, Tensors, method
from ._gram import Layout, inputs_first, matched
from ._stat import Stat
from ._weights import is_some


@method(
    "regmean",
    source="Jin et al., 2023. Dataless knowledge fusion by merging weights of language models. arXiv:2212.09849",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ZERO_IS_ABSENT, Law.HOMOGENEOUS},
)
def regmean(
    tensors: Tensors,
    gram: Annotated[Array | None, Stat("gram", shape="gram", inputs_first=inputs_first)],
    *,
    weight: Annotated[Array, PerModel(1.0, In(0, float("inf")))],
    keep: Fraction = 0.9,
    ridge: Annotated[float, In(0, float("inf"))] = 1e-6,
    layout: Layout = "out_in",
) -> Merged:
    """Merge linear layers by least squares, so that outputs on each model's own inputs change least.

    W^T = (sum_i w_i G_i + rho I)^-1 (sum_i w_i G_i W_i^T + rho M^T), where G_i = a X_i^T X_i / n_i, with a applied to
    off-diagonal entries only, X_i are the inputs that the matrix sees in model i, M is the weighted mean of the
    matrices, and rho = ridge * trace(sum_i w_i G_i) / d. It is solved as a correction of M, in float64, by Cholesky
    decomposition, or by a pseudo-inverse if the matrix is singular.

    Tensors without a Gram matrix (biases, norms, embeddings) are averaged with the weights. A convolution's inputs are
    the patches under its kernel.

    Departures:
        The ridge is an addition: the authors invert without one. The paper uses a = 0.9; the authors' configurations
        use 0.1 for some models. Their Gram matrices include padding; those of polyak do not.

    Args:
        tensors: (k, *shape).
        gram: Gram matrix of each model's inputs, X^T X / n: (k, d, d).
        weight: Weight of each model.
        keep: Factor of the off-diagonal entries; the paper's a.
        ridge: Ridge towards the mean for directions absent from all inputs, relative to the mean eigenvalue.
        layout: Layout of matrices: (outputs, inputs), as in torch's Linear, or (inputs, outputs), as in GPT-2's Conv1D.
    """
    return matched(tensors, gram, weight, keep, ridge, layout)


regmean.requires(is_some)
