"""KnOTS with DARE: align all deltas in one basis, drop at random there, and add up."""

from __future__ import annotations

from typing import Annotated

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, Uniform, method
from ._knots import aligned, restored, workspace
from ._matrices import EXCLUDE, Conv, Qkv, Tasks, Vectors, merged, vectors_left


@method(
    "knots_dare",
    source="Stoica et al., 2025. Model merging with SVD to tie the Knots. arXiv:2410.19735",
    workspace=workspace,
    laws={Law.SYMMETRIC, Law.HOMOGENEOUS},
)
def knots_dare(
    deltas: Deltas,
    name: Name,
    chance: Uniform,
    *,
    weight: Coefficient,
    density: Annotated[float, In(0, 1, above=True)] = 0.2,
    scale: float = 0.6,
    exclude: Pattern = EXCLUDE,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Write all deltas in one basis of what they put out, drop entries at random there, rescale, add up, and go back.

    With the basis U and the representations R_t of `knots`, tau = scale * U sum_t m_t R_t / density, where m_t is 1
    with probability `density`, independently for every entry.

    Departures:
        Singular values are dropped up to 1e-6 of the largest; by the authors up to 1e-5.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        chance: A number in [0, 1) for each model and entry; an entry is kept where it is below the density.
        weight: What each delta is multiplied by, first of all; the paper has 1.
        density: Probability that an entry is kept: one minus the drop rate p, for which the paper has 0.8.
        scale: What the result is multiplied by; the paper has 0.6, and 0.4 for language models.
        exclude: Names (`re.search`) of matrices that are taken for vectors; empty: none.
        vector_1d: What is added for vectors: `scale` times the `mean` of the weighted deltas, or `zero`.
        conv: Whether tensors of three and more dimensions are vectors, or each the `matrix` (d_out, rest).
        qkv: Whether queries, keys and values stacked in one matrix are merged `fused`, or `split` in three where each
            is square.
    """

    def merge(tasks: Tasks, drawn: Array) -> Array:
        basis, stack = aligned(tasks)
        xp = array_namespace(stack)
        kept = xp.where(drawn[:, : basis.shape[1], :] < density, stack, xp.zeros_like(stack))
        return restored(basis, xp.sum(kept, axis=0) / density)

    return scale * merged(deltas, weight, name, qkv, merge, chance)


knots_dare.delegates_to(vectors_left)
