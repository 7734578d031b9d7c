"""DELLA: drop entries at random by rank, rescale, elect signs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from . import Array, Coefficient, Delta, Deltas, FirstPass, In, Law, PerModel, Uniform, method
from ._magprune import norms_when_thinned, thin_tile, thinned, windows_fit
from ._sign_election import Function, elect
from ._sparsify import Rescale


@method(
    "della",
    source="Deep et al., 2024. DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling. "
    "arXiv:2406.11617",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ROWS, Law.HOMOGENEOUS},
)
def della(
    deltas: Deltas,
    chance: Uniform,
    norms: Annotated[Array | None, FirstPass(norms_when_thinned)],
    *,
    weight: Coefficient,
    density: Annotated[Array, PerModel(0.7, In(0, 1, above=True))],
    epsilon: Annotated[Array, PerModel(0.07, In(0, 0.5))],
    rescale: Rescale = "inverse_keep",
    function: Function = "mean",
    zero_sum: Literal["positive", "drop"] = "positive",
    scale: float = 1.0,
) -> Delta:
    """Drop entries at random, small ones more often, rescale the rest, elect a sign, average the entries that agree.

    keep_i = d_i - e_i + 2 e_i (rank - 1) / (n - 1), for the rank of |tau_i| among the n entries of its row, 1 the
    smallest; sparse_i = m_i tau_i / keep_i, where m_i is 1 with probability keep_i, independently;
    s = sign(sum_i w_i sparse_i), where 0 counts as positive;
    tau = scale * sum_i w_i sparse_i [w_i sparse_i s > 0] / sum_i w_i [w_i sparse_i s > 0].

    A row is everything with the same first index; a vector is one row. A row of one entry keeps it with probability d,
    and a density of 1 keeps everything. Of equal magnitudes, the first counts as the largest.

    Departures:
        epsilon is half of the paper's. The authors' code divides by zero for rows of one entry, and does not merge
        tensors with more than two dimensions. mergekit and sd-mecha rescale all entries by one factor (`rescale: l1`),
        which is biased.

    Args:
        deltas: (k, *shape).
        chance: A uniform random number per model and entry; the entry is kept if it is below its probability.
        norms: L1 norms of the task vectors before and after the drop.
        weight: Weight of each model in election and merge.
        density: Mean probability that an entry is kept: one minus the paper's p.
        epsilon: Half the width of the window of probabilities: half the paper's epsilon. mergekit has 0.15.
        rescale: Rescaling after the drop: `inverse_keep` divides each entry by its own probability (paper), which is
            right in expectation; `l1` restores each tensor's L1 norm by one factor (mergekit); `none`.
        function: Merge agreeing entries by `mean`, `sum`, or `max`, the largest magnitude.
        zero_sum: Sign of entries whose sum is exactly zero: `positive` merges the positive ones (authors' code), `drop`
            keeps the base's value.
        scale: The paper's lambda; the authors' example has 1.1.
    """
    weighted = weight * thinned(deltas, chance, norms, density, epsilon, rescale)
    return scale * elect(weighted, weight, function, float(zero_sum == "positive"))


della.requires(windows_fit)


@della.kernel
def _kernel(
    out: Any,
    deltas: Any,
    chance: Any,
    norms: Any,
    weight: Any,
    density: Any,
    epsilon: Any,
    rescale: Rescale,
    function: Function,
    zero_sum: str,
    scale: float,
) -> None:
    from ..kernels.sign_election import FUNCTIONS
    from ..kernels.sign_election import elect as elect_tile

    flat = thin_tile(deltas, chance, norms, density, epsilon, rescale)
    elect_tile(out, flat, weight, weight, FUNCTIONS[function], float(zero_sum == "positive"), scale)
