"""EMR-Merging: one unified task vector, with a mask and a rescaler per model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, In, Law, method
from ._masks import Masks
from ._passes import Sum
from ._sign_election import elect
from ._sparsify import norm_kept, where
from ._sum_call import SumCall

Rescale: TypeAlias = Literal["paper", "official"]


def _sizes(masks: bool, rescale: Rescale) -> Sum | None:
    if not masks:
        return None
    return Sum(_before_and_after, scope="model", kernel=_sizes_kernel, of_means=rescale == "official")


def _before_and_after(deltas: Array, scale: float) -> Array:
    xp = array_namespace(deltas)
    masked = where(_agrees(deltas), _unified(deltas, scale) + xp.zeros_like(deltas))
    return xp.abs(xp.concat([deltas, masked], axis=0))


@method(
    "emr",
    source="Huang et al., 2024. EMR-Merging: Tuning-Free High-Performance Model Merging. arXiv:2405.17461",
    laws={Law.SYMMETRIC, Law.IDEMPOTENT, Law.HOMOGENEOUS, Law.ELEMENTWISE},
)
def emr(
    deltas: Deltas,
    sizes: Annotated[Array | None, FirstPass(_sizes)],
    *,
    masks: bool = True,
    rescale: Rescale = "paper",
    scale: Annotated[float, In(0, float("inf"), above=True)] = 1.0,
) -> Delta:
    """Elect a sign per entry and take the largest magnitude with that sign; store a mask per model.

    gamma = sign(sum_i tau_i), -1 where the sum is zero; unified = scale * gamma * max_i |tau_i| [tau_i gamma > 0].

    With `masks`, a merge into a folder also writes `masks/<model>.safetensors` for every model: where tau_i gamma > 0,
    and rho_i = size(tau_i) / size(masked unified). base + rho_i * mask_i * unified is model i, nearly;
    open that file as a checkpoint to have it. The unified task vector alone is much too long to be a good model of all
    tasks.

    Departures:
        The authors' main script uses `rescale: official`; the default is the paper's.

    Args:
        deltas: (k, *shape).
        sizes: L1 norms of each task vector, then of the masked unified task vector.
        masks: Write masks; merges in memory and nested merges write none.
        rescale: Norms that define rho: `paper` takes the sum of magnitudes over all tensors together (as the authors'
            script for thirty tasks); `official` adds up the means of each tensor, as their main script.
        scale: Factor of the unified task vector; rho makes up for it.
    """
    return _unified(deltas, scale)


def _unified(deltas: Array, scale: float) -> Array:
    xp = array_namespace(deltas)
    return scale * elect(deltas, xp.ones_like(deltas), "max", -1.0)


def _agrees(deltas: Array) -> Array:
    """tau_i gamma > 0."""
    xp = array_namespace(deltas)
    return ((deltas > 0) == (xp.sum(deltas, axis=0) > 0)) & (deltas != 0)


@emr.masking
def _masks(deltas: Array, sizes: Array) -> Masks:
    return Masks(_agrees(deltas), _rescalers(sizes))


def _rescalers(sizes: Array) -> Array:
    xp = array_namespace(sizes)
    return norm_kept(sizes, xp.ones(sizes.shape[0] // 2, dtype=sizes.dtype))


@emr.pack_masks
def _pack(packed: Any, deltas: Any, sizes: Any) -> Any:
    from ..kernels.masks import pack_agreeing

    pack_agreeing(packed, deltas)
    return _rescalers(sizes)


def _sizes_kernel(scale: float, models: int) -> SumCall:
    from ..kernels.sums import sizes_when_unified

    return SumCall(sizes_when_unified, 2 * models, (scale,))


@emr.kernel
def _kernel(out: Any, deltas: Any, scale: float) -> None:
    from ..kernels.sign_election import unify

    unify(out, deltas, scale)
