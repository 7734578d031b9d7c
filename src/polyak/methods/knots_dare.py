"""KnOTS with DARE."""

from __future__ import annotations

from typing import Annotated

from array_api_compat import array_namespace

from . import Array, Coefficient, Delta, Deltas, In, Law, Name, Pattern, Uniform, method
from ._knots import aligned, restored, workspace
from ._matrices import NOT_MATRICES, Conv, Qkv, Tasks, Vectors, merged, vectors_left


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
    exclude: Pattern = NOT_MATRICES,
    vector_1d: Vectors = "mean",
    conv: Conv = "vector",
    qkv: Qkv = "fused",
) -> Delta:
    """Express all task vectors in a shared SVD basis of the output space, and merge them there by DARE.

    With the basis U and the representations R_t of `knots`, tau = scale * U sum_t m_t R_t / density, where m_t is 1
    with probability `density`, independently for every entry.

    Departures:
        Singular values up to 1e-6 of the largest are dropped; the authors drop those up to 1e-5.

    Args:
        deltas: (k, *shape).
        name: The tensor's name.
        chance: A uniform random number per model and entry; the entry is kept if it is below the density.
        weight: Factor of each task vector, applied first (paper: 1).
        density: Probability that an entry is kept: one minus the drop rate p, for which the paper has 0.8.
        scale: Factor of the result; the paper has 0.6, and 0.4 for language models.
        exclude: Regular expression for the names of matrices to treat as vectors; empty: none.
        vector_1d: Change of vectors: `scale` times the `mean` of the weighted task vectors, or `zero`.
        conv: Treat tensors with three or more dimensions as a `vector`, or as a `matrix` (d_out, rest).
        qkv: Merge stacked query, key and value matrices `fused`, or `split` into three if each is square.
    """

    def merge(tasks: Tasks, drawn: Array) -> Array:
        basis, stack = aligned(tasks)
        xp = array_namespace(stack)
        kept = xp.where(drawn[:, : basis.shape[1], :] < density, stack, xp.zeros_like(stack))
        return restored(basis, xp.sum(kept, axis=0) / density)

    return scale * merged(deltas, weight, name, qkv, merge, chance)


knots_dare.delegates_to(vectors_left)
