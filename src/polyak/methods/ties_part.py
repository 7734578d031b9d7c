"""The part of one model that TIES keeps."""

from __future__ import annotations

from typing import Annotated, Any

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, In, Law, PerModel, method
from ._passes import Cut, Top
from ._sparsify import Granularity, TopK, survivors, trimmed


def _survivors(density: tuple[float, ...], topk: TopK, granularity: Granularity) -> Top | None:
    return survivors(density, topk, granularity)


@method(
    "ties_part",
    source="Yang et al., 2024. AdaMerging (AdaMerging++). arXiv:2310.02575",
    laws={Law.HOMOGENEOUS, Law.ELEMENTWISE},
)
def ties_part(
    deltas: Deltas,
    kept: Annotated[Cut | None, FirstPass(_survivors)],
    *,
    density: Annotated[Array, PerModel(0.2, In(0, 1))],
    topk: TopK = "official",
    granularity: Granularity = "model",
    scale: float = 1.0,
) -> Delta:
    """Keep the part of the first model's task vector that TIES keeps: top-k entries with the elected sign.

    trimmed_i = tau_i where |tau_i| reaches the density-th quantile, else 0; s = sign(sum_i trimmed_i);
    tau = scale * trimmed_1 [trimmed_1 s > 0].

    The other models only vote. `polyak learn adamerging --set trim=true` nests one such merge per model and learns
    their coefficients. Entries whose votes sum to exactly zero are dropped.

    Departures:
        Entries whose votes sum to exactly zero are dropped; in the authors' code they get the majority sign.

    Args:
        deltas: (k, *shape); the first is the model whose part is kept.
        kept: Entries that remain after the trim.
        density: Fraction of entries that each model keeps; the paper has 0.2.
        topk: As for `ties`.
        granularity: Scope of the trim: the whole `model` (paper), or each `tensor`.
        scale: Factor of the result.
    """
    xp = array_namespace(deltas)
    left = trimmed(deltas, kept)
    agrees = left[0] * xp.sign(xp.sum(left, axis=0)) > 0
    return scale * xp.where(agrees, left[0], xp.zeros_like(left[0]))


@ties_part.kernel
def _kernel(out: Any, deltas: Any, kept: Cut | None, scale: float) -> None:
    from ..kernels.sign_election import own_part
    from ..kernels.sparsify import trim

    if kept is not None:
        trim(deltas, kept.value, kept.last, kept.row, kept.start)
    own_part(out, deltas, scale)
