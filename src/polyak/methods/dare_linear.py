"""DARE: random dropping and rescaling of task vectors."""

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
    """Drop entries of each task vector at random, rescale the rest, and add the weighted task vectors to the base.

    sparse_i = m_i tau_i / d_i, where m_i is 1 with probability d_i, independently for every entry;
    tau = scale * sum_i w_i sparse_i; with `normalize`, divided by sum_i w_i.

    Departures:
        None from the paper. mergekit restores L1 norms (`rescale: l1`), which is in no paper.

    Args:
        deltas: (k, *shape).
        chance: A uniform random number per model and entry; the entry is kept if it is below the density.
        norms: L1 norms of the task vectors before and after the drop.
        weight: Weight of each model; may be negative.
        density: Probability that an entry is kept: one minus the paper's drop rate p. The paper drops 0.9 of tuned
            language models' task vectors; the default of 0.5 is cautious.
        rescale: Rescaling after the drop: `inverse_keep` divides by the density, as the paper, which is right in
            expectation; `l1` restores each tensor's L1 norm (mergekit); `none`.
        normalize: Divide by the sum of the weights.
        scale: Factor of the result.
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
