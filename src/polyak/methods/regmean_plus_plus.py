"""RegMean++: RegMean on inputs behind merged blocks."""

from __future__ import annotations

from typing import Annotated

from . import Array, Fraction, In, Law, Merged, PerModel, Tensors, method
from ._gram import Layout, inputs_first, matched
from ._stat import Stat
from ._weights import is_some


@method(
    "regmean_plus_plus",
    source="Nguyen et al., 2025. RegMean++: Enhancing effectiveness and generalization of regression mean for model "
    "merging. arXiv:2508.03121",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.ZERO_IS_ABSENT, Law.HOMOGENEOUS},
)
def regmean_plus_plus(
    tensors: Tensors,
    gram: Annotated[Array | None, Stat("merged_gram", shape="gram", inputs_first=inputs_first)],
    *,
    weight: Annotated[Array, PerModel(1.0, In(0, float("inf")))],
    keep: Fraction = 0.95,
    ridge: Annotated[float, In(0, float("inf"))] = 1e-6,
    layout: Layout = "out_in",
) -> Merged:
    """Merge linear layers by least squares on inputs that have passed through the blocks merged so far.

    The formula is `regmean`'s: W^T = (sum_i w_i G_i + rho I)^-1 (sum_i w_i G_i W_i^T + rho M^T), G_i = a X_i^T X_i /
    n_i with a applied to off-diagonal entries only. The difference is X_i: model i's data passes through the merged
    blocks first, so a layer is fitted to the inputs that it will see. `polyak measure merged-gram` processes the blocks
    in order and merges each, by this recipe, as soon as it is measured. The Gram matrices are valid for that recipe's
    models, weights and settings only.

    Tensors outside the blocks are averaged with the weights before later blocks are measured.

    Departures:
        The ridge is an addition, as in `regmean`. The authors' code keeps some tensors outside the blocks, such as a
        final norm, at their values before fine-tuning.

    Args:
        tensors: (k, *shape).
        gram: Gram matrix of each model's inputs behind merged blocks, X^T X / n: (k, d, d).
        weight: Weight of each model.
        keep: Factor of the off-diagonal entries (authors: 0.95).
        ridge: Ridge towards the mean for directions absent from all inputs, relative to the mean eigenvalue.
        layout: Layout of matrices: (outputs, inputs), as in torch's Linear, or (inputs, outputs), as in GPT-2's Conv1D.
    """
    return matched(tensors, gram, weight, keep, ridge, layout)


regmean_plus_plus.requires(is_some)
