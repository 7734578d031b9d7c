"""RegMean++: RegMean on what a layer sees behind the merged layers before it."""

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
    """Merge matrices so that each model's outputs change least on its inputs behind blocks that are merged already.

    The formula is `regmean`'s:
    W^T = (sum_i w_i G_i + rho I)^-1 (sum_i w_i G_i W_i^T + rho M^T), G_i = a X_i^T X_i / n_i with its off-diagonal
    entries only. What differs is X_i: model i's data goes through the merged blocks before, so that a layer is fitted
    to what it will see. `polyak measure merged-gram` goes through the blocks in order, merges each as soon as it is
    measured, by this recipe, and goes on behind it. The Grams belong to that recipe's models, weights and settings.

    Tensors outside the blocks are averaged with the weights, before what is behind them is measured.

    Departures:
        The ridge is ours, as in `regmean`. The authors' code keeps some tensors outside the blocks, such as a last
        norm, as they were before fine-tuning.

    Args:
        tensors: (k, *shape).
        gram: Inner products of each model's inputs behind merged blocks, X^T X / n: (k, d, d).
        weight: Weight of each model.
        keep: What is kept of the entries off the diagonal; the authors have 0.95.
        ridge: How firmly directions that no model's inputs have stay with the mean, relative to the mean eigenvalue.
        layout: Whether matrices are (outputs, inputs), as torch's Linear, or (inputs, outputs), as Conv1D of GPT-2.
    """
    return matched(tensors, gram, weight, keep, ridge, layout)


regmean_plus_plus.requires(is_some)
