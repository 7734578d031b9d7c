"""Task arithmetic: the sum of task vectors."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from . import Coefficient, Delta, Deltas, KernelCall, Law, method
from ._weights import has_a_sum


@method(
    "task_arithmetic",
    source="Ilharco et al., 2023. Editing Models with Task Arithmetic. arXiv:2212.04089",
    laws={Law.SYMMETRIC, Law.ZERO_IS_ABSENT, Law.ELEMENTWISE, Law.HOMOGENEOUS, Law.LINEAR},
)
def task_arithmetic(deltas: Deltas, *, weight: Coefficient, scale: float = 1.0, normalize: bool = False) -> Delta:
    """Add the weighted task vectors to the base.

    theta_0 + scale * sum_i w_i tau_i; with `normalize`, scale * sum_i w_i tau_i / sum_i w_i.

    A negative weight makes a model forget its task. `weight: [1, 1, -1]` for models trained on (a, b, c) is the
    analogy a + (b - c).

    Departures:
        None known.

    Args:
        deltas: (k, *shape).
        weight: Weight of each model; may be negative.
        scale: The paper's lambda. The paper tunes it on held-out data and finds about 0.3 for eight tasks; the
            default of 1 leaves the size to the weights.
        normalize: Divide by the sum of the weights.
    """
    xp = array_namespace(deltas)
    total = scale * xp.sum(weight * deltas, axis=0)
    return total / xp.sum(weight) if normalize else total


task_arithmetic.requires(has_a_sum)


@task_arithmetic.kernel
def _kernel(weight: Any, scale: float, normalize: bool) -> KernelCall:
    from ..kernels.weighted_sums import combine

    return KernelCall(combine, (weight, float(scale / weight.sum()) if normalize else scale))
