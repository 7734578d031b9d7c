"""TALL masks: a multi-task vector, with a mask per model."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, method
from ._masks import Masks
from ._passes import Cut, Sum, Top
from ._sign_election import ZeroSum
from ._sparsify import Granularity
from ._tall_masks import Of, kept_by_ties, majority_of_ties, multi_task, multi_task_tile, needed


def _survivors(of: Of, density: tuple[float, ...], granularity: Granularity) -> Top | None:
    return kept_by_ties(of, density, granularity)


def _majority(of: Of, granularity: Granularity, zero_sum: ZeroSum) -> Sum | None:
    return majority_of_ties(of, granularity, zero_sum)


@method(
    "tall_masks",
    source="Wang et al., 2024. Localizing Task Information for Improved Model Merging and Compression. "
    "arXiv:2405.07813",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.HOMOGENEOUS, Law.ELEMENTWISE},
)
def tall_masks(
    deltas: Deltas,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    majority: Annotated[Array | None, FirstPass(_majority)],
    *,
    weight: Coefficient,
    tall_lambda: Annotated[Array, PerModel(0.4, In(0, float("inf")))],
    masks: bool = True,
    of: Of = "sum",
    density: Annotated[Array, PerModel(0.2, In(0, 1))],
    granularity: Granularity = "tensor",
    zero_sum: ZeroSum = "drop",
) -> Delta:
    """Sum the task vectors, plainly or by TIES, and store a mask per model of the entries that it needs.

    tau = sum_i w_i tau_i, or by TIES; mask_i = |w_i tau_i| > lambda_i |tau - w_i tau_i|.

    With `masks`, a merge into a folder also writes `masks/<model>.safetensors` for every model; base + mask_i * tau
    approximates model i, and that file opens as a checkpoint of it. The merged model is rounded to its dtype, and so is
    everything recovered from it with masks: use `dtype: float32` if that matters.

    Departures:
        The authors choose lambda_i per task on validation data; here it is a setting. Their TIES trims over the whole
        model and resolves zero sums by majority: `granularity: model` and `zero_sum: majority`.

    Args:
        deltas: (k, *shape).
        kept: Entries that remain after the trim of TIES.
        majority: Sum of all elected signs, to break sums of exactly zero.
        weight: Weight of each model; the paper has 1.
        tall_lambda: The mask's lambda: the higher, the sparser the mask. The authors choose from 0.2 to 0.6 by the
            task's validation accuracy; FusionBench has 0.6.
        masks: Write masks; merges in memory and nested merges write none.
        of: Merge task vectors by `sum`, or by `ties` with `function: sum`.
        density: Fraction of entries that TIES keeps of each model.
        granularity: Scope of the trim of TIES: each `tensor`, or the whole `model` (authors).
        zero_sum: The sign of entries whose sum is zero, as of `ties`; the authors have `majority`.
    """
    return multi_task(deltas, kept, majority, weight, of, zero_sum)


@tall_masks.masking
def _masks(
    deltas: Array,
    kept: Cut | None,
    majority: Array | None,
    weight: Array,
    tall_lambda: Array,
    of: Of,
    zero_sum: ZeroSum,
) -> Masks:
    xp = array_namespace(deltas)
    merged = multi_task(deltas, kept, majority, weight, of, zero_sum)
    return Masks(needed(deltas, merged, weight, tall_lambda), xp.ones(deltas.shape[0], dtype=deltas.dtype))


@tall_masks.pack_masks
def _pack(
    packed: Any, deltas: Any, kept: Cut | None, majority: Any, weight: Any, tall_lambda: Any, of: Of, zero_sum: ZeroSum
) -> Any:
    import numpy as np

    from ..kernels.masks import pack_needed

    merged = np.empty(deltas.shape[1], np.float32)
    multi_task_tile(merged, deltas, kept, majority, weight, of, zero_sum)
    pack_needed(packed, deltas, merged, weight, tall_lambda)
    return np.ones(len(deltas), np.float32)


@tall_masks.kernel
def _kernel(out: Any, deltas: Any, kept: Cut | None, majority: Any, weight: Any, of: Of, zero_sum: ZeroSum) -> None:
    multi_task_tile(out, deltas, kept, majority, weight, of, zero_sum)
