"""LoKr (Yeh et al., 2023. LyCORIS. arXiv:2309.14859)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .._api import TensorSpec
from .._floats import Floats
from . import adapter_kind
from ._change import AdaptedModule, Change, Once

_ROLES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


class _Kronecker(Change):
    """Adds scaling * kron(w1, w2)."""

    def __init__(self, module: AdaptedModule, target: TensorSpec) -> None:
        self._scaling = np.float32(module.fitting.scale * module.scaling)
        first, second = _shape(module, "1", target), _shape(module, "2", target)
        if len(first) != 2 or int(np.prod([*first, *second])) != target.numel:
            raise module.misfit(target)
        self._rows_fit = len(second) != 3
        if self._rows_fit and first[0] * second[0] != target.shape[0]:
            raise module.misfit(target)
        self.nbytes = 4 * int(np.prod(first)) + 4 * int(np.prod(second))
        self._factors = Once(lambda: (_factor(module, "1"), _factor(module, "2")))

    def apply(self, values: Floats, start: int) -> None:
        w1, w2 = self._factors()
        # A w2 of three axes is that of a 1D convolution, whose Kronecker product PEFT takes over the last two.
        parts = self._rows(w1, w2, start, values.size) if self._rows_fit else self._layers(w1, w2, start, values.size)
        for at, added in parts:
            values[at : at + added.size] += added * self._scaling

    @staticmethod
    def _rows(w1: Floats, w2: Floats, start: int, count: int) -> Iterator[tuple[int, Floats]]:
        second = w2.reshape(w2.shape[0], -1)
        columns, done = w1.shape[1] * second.shape[1], 0
        while done < count:
            row, column = divmod(start + done, columns)
            upper, lower = divmod(row, second.shape[0])
            values = np.multiply.outer(w1[upper], second[lower]).reshape(-1)[column : column + count - done]
            yield done, values
            done += values.size

    @staticmethod
    def _layers(w1: Floats, w2: Floats, start: int, count: int) -> Iterator[tuple[int, Floats]]:
        size, done = w1.size * w2[0].size, 0
        while done < count:
            layer, entry = divmod(start + done, size)
            values = np.kron(w1, w2[layer]).reshape(-1)[entry : entry + count - done]
            yield done, values
            done += values.size


def _shape(module: AdaptedModule, number: str, target: TensorSpec) -> tuple[int, ...]:
    """The shape of w1 or w2, whether it is stored whole, as two factors, or as two factors and a core."""
    name = f"lokr_w{number}"
    if name in module.by_role:
        return module.spec(name).shape
    a, b = (module.spec(f"{name}_{letter}").shape for letter in "ab")
    core = module.spec("lokr_t2").shape if number == "2" and "lokr_t2" in module.by_role else None
    fits = len(a) == len(b) == 2 and (a[1] == b[0] if core is None else len(core) > 2 and core[:2] == (a[0], b[0]))
    if not fits:
        raise module.misfit(target)
    return (a[0], b[1]) if core is None else (a[1], b[1], *core[2:])


def _factor(module: AdaptedModule, number: str) -> Floats:
    name = f"lokr_w{number}"
    if name in module.by_role:
        return module.floats(name)
    a, b = (module.floats(f"{name}_{letter}") for letter in "ab")
    if number == "2" and "lokr_t2" in module.by_role:
        half = np.einsum("ij...,jr->ir...", module.floats("lokr_t2"), b)
        return np.einsum("ir...,ip->pr...", half, a)
    return np.einsum("ij,jk->ik", a, b)


@adapter_kind("lokr", *_ROLES, peft_types=("LOKR",))
def lokr(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """W + s kron(w1, w2), each of both whole or a product of factors."""
    for module in modules:
        target = module.target()
        yield target.name, _Kronecker(module, target)
