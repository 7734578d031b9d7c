"""Memory of a merge of adapters: one module per worker, as factors or as a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import BudgetError
from ..planning import Plan, peak_nbytes
from ._opened import Adapter, Module

_DOUBLES = 5  # float64 copies of all factors side by side: as stacked, decomposed and put together again
_SQUARES = 6  # float64 matrices of the smaller side: a Gram matrix, its eigenvectors, and what finds them


def workers_within(
    plan: Plan, weighted: Mapping[str, object], modules: Mapping[str, tuple[str, Module]],
    adapters: Sequence[Adapter], workers: int, memory: int | None,
) -> int:  # fmt: skip
    """The most workers, up to `workers`, that stay within a budget of bytes.

    Args:
        plan: The plan of the merge.
        weighted: The names of tensors that are weighted sums, which are carried out on factors.
        modules: Every module by the name of its weight.
        adapters: The adapters to merge.
        workers: Maximum number of workers.
        memory: The budget; no limit if None.

    Raises:
        BudgetError: not even one worker fits.
    """
    if memory is None:
        return workers
    dense = replace(plan, steps=tuple(step for step in plan.steps if step.out.name not in weighted))
    matrices = [_matrix_nbytes(step.out.shape[0], step.out.numel) for step in dense.steps if step.out.name in modules]
    factors = [_factors_nbytes(*modules[name], adapters) for name in weighted if name in modules]
    whole = [8 * (len(adapters) + 1) * step.out.numel for step in plan.steps if step.out.name not in modules]
    each = max([*matrices, *factors, *whole], default=0)
    if workers_that_fit := next((n for n in range(workers, 0, -1) if peak_nbytes(dense, n) + n * each <= memory), 0):
        return workers_that_fit
    raise BudgetError(
        f"this merge of adapters needs about {peak_nbytes(dense, 1) + each} bytes of memory with one worker; --memory "
        f"allows {memory}."
    )


def _factors_nbytes(name: str, module: Module, adapters: Sequence[Adapter]) -> int:
    own = [adapter.modules[name].rank for adapter in adapters if name in adapter.modules]
    rank, sides = sum(own), module.b.shape[0] + module.a.numel // module.rank
    return (4 + 8 * _DOUBLES) * rank * sides + 8 * _SQUARES * rank**2


def _matrix_nbytes(rows: int, numel: int) -> int:
    """The merged matrix, its factors at full rank, and the decomposition of its Gram matrix."""
    smaller = min(rows, numel // max(rows, 1))
    return (4 + 3 * 8) * numel + 8 * _SQUARES * smaller**2
