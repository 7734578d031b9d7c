"""DARE: drop deltas at random, rescale the rest, and add them up."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, KernelCall, Law, PerModel, Uniform, method
from ._sparsify import Rescale, dropped, norms_when_dropped, rescaling
from ._weights import has_a_sum


@method(
    "dare_linear",
    source="Yu et al., 2024. Language Models are Super Mario. arXiv:2311.03099",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def dare_linear(
    deltas: Deltas,
    chance: Uniform,
    norms: Annotated[Array | None, FirstPass(norms_when_dropped)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.5, In(0, 1, above=True))],
    rescale: Rescale = "inverse_keep",
    normalize: bool = False,
    scale: float = 1.0,
) -> Delta:
    """Keep each entry of each delta with a probability, rescale what is kept, and add the weighted deltas.

    sparse_i = m_i tau_i / d_i, where m_i is 1 with probability d_i, independently for every entry;
    tau = scale * sum_i w_i sparse_i; with `normalize`, divided by sum_i w_i.

    Departures:
        None from the paper. mergekit, and no paper, restores L1 norms: `rescale: l1`.

    Args:
        deltas: (k, *shape).
        chance: A number in [0, 1) for each model and entry; an entry is kept where it is below the density.
        norms: L1 norms of the deltas before and after the drop.
        weight: Weight of each model; may be negative.
        density: Probability that an entry is kept: one minus the paper's drop rate p. The paper drops 0.9 of
            tuned language models' deltas; the default of 0.5 is cautious.
        rescale: What keeps the size: `inverse_keep` divides by the density, as the paper, which is right in
            expectation; `l1` restores each tensor's L1 norm (mergekit); `none`.
        normalize: Divide by the sum of the weights.
        scale: What the result is multiplied by.
    """
    xp = array_namespace(deltas)
    sparse = dropped(deltas, chance, density) * rescaling(rescale, density, norms)
    total = scale * xp.sum(weight * sparse, axis=0)
    return total / xp.sum(weight) if normalize else total


dare_linear.requires(has_a_sum)


@dare_linear.kernel
def _kernel(
    chance: Any, norms: Any, weight: Any, density: Any, rescale: Rescale, normalize: bool, scale: float
) -> KernelCall:
    from ..kernels.weighted_sums import drop_and_combine

    factor = scale / weight.sum() if normalize else scale
    return KernelCall(
        drop_and_combine, (chance.keys, density, rescaling(rescale, density, norms), weight, float(factor))
    )
