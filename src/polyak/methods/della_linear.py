"""DELLA without sign election."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, Uniform, method
from ._magprune import norms_when_thinned, thin_tile, thinned, windows_fit
from ._sparsify import Rescale
from ._weights import has_a_sum


@method(
    "della_linear",
    source="Deep et al., 2024. DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling. "
    "arXiv:2406.11617",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ROWS, Law.HOMOGENEOUS},
)
def della_linear(
    deltas: Deltas,
    chance: Uniform,
    norms: Annotated[Array | None, FirstPass(norms_when_thinned)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.7, In(0, 1, above=True))],
    epsilon: Annotated[Array, PerModel(0.07, In(0, 0.5))],
    rescale: Rescale = "inverse_keep",
    normalize: bool = False,
    scale: float = 1.0,
) -> Delta:
    """Drop entries at random, small ones more often, rescale the rest, and add the weighted task vectors.

    sparse_i as in `della`; tau = scale * sum_i w_i sparse_i; with `normalize`, divided by sum_i w_i.

    Departures:
        As for `della`; the paper always elects signs.

    Args:
        deltas: (k, *shape).
        chance: A uniform random number per model and entry; the entry is kept if it is below its probability.
        norms: L1 norms of the task vectors before and after the drop.
        weight: Weight of each model; may be negative.
        density: Mean probability that an entry is kept: one minus the paper's p.
        epsilon: Half the width of the window of probabilities: half the paper's epsilon. mergekit has 0.15.
        rescale: Rescaling after the drop: `inverse_keep` divides each entry by its own probability (paper), `l1`
            restores each tensor's L1 norm by one factor (mergekit); `none`.
        normalize: Divide by the sum of the weights.
        scale: Factor of the result.
    """
    xp = array_namespace(deltas)
    total = scale * xp.sum(weight * thinned(deltas, chance, norms, density, epsilon, rescale), axis=0)
    return total / xp.sum(weight) if normalize else total


della_linear.requires(has_a_sum)
della_linear.requires(windows_fit)


@della_linear.kernel
def _kernel(
    out: Any,
    deltas: Any,
    chance: Any,
    norms: Any,
    weight: Any,
    density: Any,
    epsilon: Any,
    rescale: Rescale,
    normalize: bool,
    scale: float,
) -> None:
    from ..kernels.weighted_sums import weighted_sum

    flat = thin_tile(deltas, chance, norms, density, epsilon, rescale)
    weighted_sum(out, flat, weight, scale / weight.sum() if normalize else scale)
