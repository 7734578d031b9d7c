"""One model's task vector, reduced to selected singular directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from ..linalg import components, product, workspace
from . import Delta, Deltas, Law, Name, Pattern, method
from ._directions import ALL_DIRECTIONS, NO_DIRECTIONS, RANGES, direction_numbers
from ._matrices import NOT_MATRICES, is_matrix


@method(
    "singular_part",
    source="Lee et al., 2026. AdaRank: Adaptive Rank Pruning for Enhanced Model Merging. arXiv:2503.22178",
    models=(1, 1),
    workspace=workspace,
    laws={Law.HOMOGENEOUS},
)
def singular_part(
    deltas: Deltas, name: Name, *, keep: Pattern = ALL_DIRECTIONS, exclude: Pattern = NOT_MATRICES
) -> Delta:
    """Keep selected singular directions of a model's task vector.

    tau = sum over kept k of s_k u_k v_k^T, where the task vector of a matrix is U diag(s) V^T.

    `polyak learn adarank` nests one such merge per model, with a rule for each matrix, and learns their coefficients.
    Tensors that are not matrices are unchanged. Decompositions are as those of `tsv_m`.

    Departures:
        The authors choose directions while learning, and have no separate method for it.

    Args:
        deltas: (1, *shape).
        name: The tensor's name.
        keep: Directions to keep, numbered from 0 for the largest singular value: ranges such as `0-3,7`; `all`; or
            `none`.
        exclude: Regular expression for the names of matrices to keep unchanged; empty: none.
    """
    delta = deltas[0, ...]
    if keep == ALL_DIRECTIONS or not is_matrix(name, tuple(delta.shape), exclude, "vector"):
        return delta
    xp = array_namespace(delta)
    parts = components(xp.astype(delta, xp.float64))
    numbers = set(direction_numbers(keep))
    chosen = xp.asarray([1.0 if i in numbers else 0.0 for i in range(parts.s.shape[0])], dtype=xp.float64)
    return product(parts.u, parts.s * chosen, parts.v)


@singular_part.requires
def _is_a_choice(keep: str) -> str | None:
    if keep in (ALL_DIRECTIONS, NO_DIRECTIONS) or RANGES.fullmatch(keep):
        return None
    return f"`keep` must be `all`, `none`, or ranges of numbers such as 0-3,7; got {keep!r}."


@singular_part.delegates_to
def _vectors(name: str, shape: tuple[int, ...], exclude: str) -> tuple[str, Mapping[str, Any]] | None:
    return None if is_matrix(name, shape, exclude, "vector") else ("task_arithmetic", {"weight": [1.0]})
