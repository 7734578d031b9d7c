"""SCE: select, calculate, erase."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from array_api_compat import array_namespace

from . import Array, Delta, Deltas, FirstPass, In, KernelCall, Law, method
from ._passes import Cut, Sum, Top
from ._sign_election import elect
from ._sparsify import where
from ._sum_call import SumCall

Tiny: TypeAlias = Literal["weigh", "alike"]
_TINY = 1e-6  # sum of mean squares below which `alike` ignores them


def _varying(select_topk: float) -> Sum | None:
    return Sum(_varies, kernel=_varying_kernel) if 0 < select_topk < 1 else None


def _varies(deltas: Array) -> Array:
    """1 where the models differ: (1, *shape)."""
    variance = _variance(deltas)
    return array_namespace(deltas).astype(variance > 0, deltas.dtype)


def _selected(select_topk: float) -> Top | None:
    def count(entries: int, varying: Array) -> list[int]:
        return [int(select_topk * int(varying[0]))]

    return Top(count, of=_variance, kernel=_variance_of_tile) if 0 < select_topk < 1 else None


def _squares() -> Sum:
    return Sum(_selected_squares, kernel=_squares_kernel)


def _selected_squares(deltas: Array, selected: Cut | None, select_topk: float) -> Array:
    xp = array_namespace(deltas)
    return xp.concat([_select(deltas, selected, select_topk) ** 2, xp.ones_like(deltas[:1, ...])], axis=0)


@method(
    "sce",
    source="Wan et al., 2024. FuseChat: Knowledge Fusion of Chat Models. arXiv:2408.07990",
    laws={Law.SYMMETRIC, Law.ELEMENTWISE, Law.HOMOGENEOUS},
)
def sce(
    deltas: Deltas,
    varying: Annotated[Array | None, FirstPass(_varying)],
    selected: Annotated[Cut | None, FirstPass(_selected)],
    squares: Annotated[Array, FirstPass(_squares)],
    *,
    select_topk: Annotated[float, In(0, 1)] = 1.0,
    zero_sum: Literal["drop", "positive"] = "drop",
    tiny: Tiny = "weigh",
    scale: float = 1.0,
) -> Delta:
    """Select the entries with the highest variance between models, weight models by energy, average those that agree.

    selected_i = tau_i where the variance over the models is among the largest int(select_topk n) of the n that are not
    zero, else 0; w_i = mean square of selected_i over the sum of them; s = sign(sum_i selected_i);
    tau = scale * sum_i w_i selected_i [selected_i s > 0] / sum_i w_i [selected_i s > 0].

    Departures:
        mergekit divides by at least 1e-6, which shrinks entries that only a model with a tiny weight has, and gives all
        models the same weight if all mean squares are tiny (`tiny: alike`).

    Args:
        deltas: (k, *shape).
        varying: Number of entries with non-zero variance.
        selected: The entries with the highest variance.
        squares: Sums of the squares of each model's selected entries, and how many entries there are.
        select_topk: Fraction of the entries that vary which is selected; 1 takes all.
        zero_sum: Sign of entries whose sum is exactly zero: `drop` keeps the base's value, `positive` merges the
            positive ones (mergekit).
        tiny: Weights if all mean squares together are below 1e-6, as for small fine-tuning changes: `weigh` computes
            them regardless, `alike` gives all models the same weight (mergekit).
        scale: Factor of the result.
    """
    xp = array_namespace(deltas)
    kept = _select(deltas, selected, select_topk)
    weight = xp.reshape(xp.astype(_weights(squares, tiny), deltas.dtype), (-1, *[1] * (deltas.ndim - 1)))
    return scale * elect(weight * kept, weight, "mean", float(zero_sum == "positive"), ballot=kept)


def _variance(deltas: Array) -> Array:
    """Variance over the models, per entry: (1, *shape)."""
    xp = array_namespace(deltas)
    return xp.mean((deltas - xp.mean(deltas, axis=0)) ** 2, axis=0)[None, ...]


def _select(deltas: Array, selected: Cut | None, select_topk: float) -> Array:
    """The task vectors with zeros where they vary too little."""
    if select_topk == 0:
        return array_namespace(deltas).zeros_like(deltas)
    return deltas if selected is None else where(selected.keeps(_variance(deltas)), deltas)


def _weights(squares: Array, tiny: Tiny) -> Array:
    """The weight of each model: (k,)."""
    xp = array_namespace(squares)
    means = squares[:-1] / squares[-1]
    total = xp.sum(means)
    alike = (total == 0) | ((tiny == "alike") & (total < _TINY))
    return xp.where(alike, xp.ones_like(means) / means.shape[0], means / xp.where(total == 0, total + 1, total))


def _selection(selected: Cut | None, select_topk: float) -> tuple[bool, Any, int]:
    """True if anything is dropped, the smallest variance that is kept, and the index of its last tie."""
    import numpy as np

    if select_topk == 0:
        return True, np.float32(math.inf), -1
    if selected is None:
        return False, np.float32(-1), -1
    return True, np.float32(selected.value[0, 0]), int(selected.last[0, 0])


def _varying_kernel() -> SumCall:
    from ..kernels.sums import count_varying

    return SumCall(count_varying, 1)


def _variance_of_tile(deltas: Any) -> Any:
    import numpy as np

    from ..kernels.variance import variances

    out = np.empty_like(deltas[0])
    variances(out, deltas)
    return out[None]


def _squares_kernel(selected: Cut | None, select_topk: float, models: int) -> SumCall:
    from ..kernels.sums import squares_of_varying

    return SumCall(squares_of_varying, models + 1, _selection(selected, select_topk))


@sce.kernel
def _kernel(
    selected: Cut | None, squares: Any, select_topk: float, zero_sum: str, tiny: Tiny, scale: float
) -> KernelCall:
    import numpy as np

    from ..kernels.variance import select_and_elect

    weight = _weights(squares, tiny).astype(np.float32)
    ballot = np.ones(len(weight), np.float32)
    tie = float(zero_sum == "positive")
    return KernelCall(select_and_elect, (*_selection(selected, select_topk), weight, ballot, tie, float(scale)))
