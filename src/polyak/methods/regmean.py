"""RegMean: the matrix whose outputs are closest to each model's, on that model's own inputs."""

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
    """Merge matrices so that each model's outputs change least on its own inputs.

    W^T = (sum_i w_i G_i + rho I)^-1 (sum_i w_i G_i W_i^T + rho M^T), where G_i = a X_i^T X_i / n_i, with its
    off-diagonal entries only, X_i are the inputs that the matrix sees in model i, M is the weighted mean of the
    matrices, and rho = ridge * trace(sum_i w_i G_i) / d. That is solved as a correction of M, in float64, by Cholesky's
    factors, and by a pseudo-inverse where the matrix is singular.

    Tensors without a Gram - biases, norms, embeddings - are averaged with the weights. A convolution's inputs are the
    patches under its kernel.

    Departures:
        The ridge is ours: the authors invert without one. Their paper shrinks with a = 0.9; their configurations have
        0.1 for some models. Their Grams include padding; ours do not.

    Args:
        tensors: (k, *shape).
        gram: Inner products of each model's inputs, X^T X / n: (k, d, d).
        weight: Weight of each model.
        keep: The paper's a: what is kept of the entries off the diagonal.
        ridge: How firmly directions that no model's inputs have stay with the mean, relative to the mean eigenvalue.
        layout: Whether matrices are (outputs, inputs), as torch's Linear, or (inputs, outputs), as Conv1D of GPT-2.
    """
    return matched(tensors, gram, weight, keep, ridge, layout)


regmean.requires(is_some)
