"""Consensus merging: drop entries that at most one model needs."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, method
from ._passes import Cut, Sum, Top
from ._sign_election import ZeroSum
from ._sparsify import Granularity
from ._tall_masks import Of, kept_by_ties, majority_of_ties, multi_task, multi_task_tile, needed


def _survivors(of: Of, density: tuple[float, ...], granularity: Granularity) -> Top | None:
    return kept_by_ties(of, density, granularity)


def _majority(of: Of, granularity: Granularity, zero_sum: ZeroSum) -> Sum | None:
    return majority_of_ties(of, granularity, zero_sum)


@method(
    "consensus",
    source="Wang et al., 2024. Localizing Task Information for Improved Model Merging and Compression. "
    "arXiv:2405.07813",
    models=(2, None),
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.HOMOGENEOUS, Law.ELEMENTWISE},
)
def consensus(
    deltas: Deltas,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    majority: Annotated[Array | None, FirstPass(_majority)],
    *,
    weight: Coefficient,
    tall_lambda: Annotated[Array, PerModel(0.4, In(0, float("inf")))],
    agreement: Annotated[int, In(0, float("inf"))] = 2,
    of: Of = "sum",
    density: Annotated[Array, PerModel(0.2, In(0, 1))],
    granularity: Granularity = "tensor",
    zero_sum: ZeroSum = "drop",
    scale: float = 1.0,
) -> Delta:
    """Merge the task vectors, then keep only the entries that at least two models need.

    tau = sum_i w_i tau_i, or by TIES;
    mask_i = |w_i tau_i| > lambda_i |tau - w_i tau_i| (the TALL masks);
    theta_0 + scale * tau [sum_i mask_i >= agreement].

    The authors choose lambda_i per task from 0.2 to 0.6 by its validation accuracy, and scale from 0 to 1.

    Departures:
        The authors choose lambda_i per task on validation data; here it is a setting. Their TIES trims over the whole
        model and resolves zero sums by majority: `granularity: model` and `zero_sum: majority`.

    Args:
        deltas: (k, *shape).
        kept: Entries that remain after the trim of TIES.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model; the paper has 1.
        tall_lambda: The mask's lambda: the higher, the sparser the mask. FusionBench has 0.6.
        agreement: Minimum number of models that need an entry; the paper's k. 1 drops what none needs, 0 drops nothing.
        of: Merge task vectors by `sum` (consensus task arithmetic), or by `ties` with `function: sum`.
        density: Fraction of entries that TIES keeps of each model.
        granularity: Scope of the trim of TIES: each `tensor`, or the whole `model` (authors).
        zero_sum: The sign of entries whose sum is zero, as of `ties`; the authors have `majority`.
        scale: The paper's alpha.
    """
    xp = array_namespace(deltas)
    merged = multi_task(deltas, kept, majority, weight, of, zero_sum)
    masks = needed(deltas, merged, weight, tall_lambda)
    agreeing = xp.sum(xp.astype(masks, xp.int32), axis=0) >= agreement
    return scale * xp.where(agreeing, merged, xp.zeros_like(merged))


@consensus.requires
def _can_agree(weight: tuple[float, ...], agreement: int) -> str | None:
    if agreement <= len(weight):
        return None
    return f"`agreement: {agreement}` of {len(weight)} models can never be reached; nothing would be merged."


@consensus.kernel
def _kernel(
    out: Any,
    deltas: Any,
    kept: Cut | None,
    majority: Any,
    weight: Any,
    tall_lambda: Any,
    agreement: int,
    of: Of,
    zero_sum: ZeroSum,
    scale: float,
) -> None:
    from ..kernels.masks import consensus as consensus_tile

    multi_task_tile(out, deltas, kept, majority, weight, of, zero_sum)
    consensus_tile(out, deltas, weight, tall_lambda, agreement, scale)
