"""LoHa (Hyeon-Woo et al., 2022. FedPara: Low-rank Hadamard Product. arXiv:2108.06098)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .._api import TensorSpec
from .._floats import Floats
from . import adapter_kind
from ._change import AdaptedModule, Change, Once

_ROLES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")


class _Hadamard(Change):
    """Adds scaling * (left1 @ right1) * (left2 @ right2), entry by entry."""

    def __init__(self, module: AdaptedModule, target: TensorSpec) -> None:
        self._scaling = np.float32(module.fitting.scale * module.scaling)
        rows, columns = target.shape[0], int(np.prod(target.shape[1:]))
        for number in "12":
            (out, r), (inner, size) = _shapes(module, number)
            if (out, size) != (rows, columns) or r != inner:
                raise module.misfit(target)
        self.nbytes = sum(4 * (out * r + r * size) for (out, r), (_, size) in (_shapes(module, n) for n in "12"))
        self._factors = Once(lambda: [_factors(module, number) for number in "12"])

    def apply(self, values: Floats, start: int) -> None:
        from .._low_rank import add_product

        first, second = (np.zeros_like(values) for _ in range(2))
        for out, (left, right) in zip((first, second), self._factors(), strict=True):
            add_product(out, start, left, right, np.float32(1))
        first *= second
        first *= self._scaling
        values += first


def _shapes(module: AdaptedModule, number: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of both factors as matrices: (out, r) and (r, in times the kernel's size)."""
    a, b = (module.spec(f"hada_w{number}_{letter}").shape for letter in "ab")
    if len(a) != 2 or len(b) != 2:
        raise module.misfit(module.target())
    if f"hada_t{number}" not in module.by_role:
        return a, b
    core = module.spec(f"hada_t{number}").shape
    if len(core) < 3 or core[:2] != (a[0], b[0]):
        raise module.misfit(module.target())
    return a[::-1], (core[0], b[1] * int(np.prod(core[2:])))


def _factors(module: AdaptedModule, number: str) -> tuple[Floats, Floats]:
    a, b = (module.floats(f"hada_w{number}_{letter}") for letter in "ab")
    if f"hada_t{number}" not in module.by_role:
        return a, b
    core = module.floats(f"hada_t{number}")
    right = np.einsum("ij...,jr->ir...", core, b)  # (r, in, kernel height, kernel width)
    return np.ascontiguousarray(a.T), np.ascontiguousarray(right.reshape(len(right), -1))


@adapter_kind("loha", *_ROLES, peft_types=("LOHA",))
def loha(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """W + s (A1 B1) * (A2 B2), the products of two pairs of factors multiplied entry by entry."""
    for module in modules:
        target = module.target()
        yield target.name, _Hadamard(module, target)
