"""DoRA (Liu et al., 2024. Weight-Decomposed Low-Rank Adaptation. arXiv:2402.09353)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .._api import TensorSpec
from .._floats import Floats
from . import adapter_kind
from ._change import AdaptedModule, Change, Once, multiply_along, towards
from .lora import Product, oriented, shifted_bias

_CHUNK = 2**20  # entries of the weight in memory at a time
_ROLES = (
    "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_B.bias", "lora_magnitude_vector",
)  # fmt: skip


class _Rescaled(Change):
    """V = W + s B A, then every output feature of V gets the length that the magnitude vector states.

    Args:
        module: The module.
        target: Its weight.
        swapped: True if the weight is stored transposed, so that columns of it are output features.
    """

    def __init__(self, module: AdaptedModule, target: TensorSpec, *, swapped: bool) -> None:
        self._shape, self._axis, self._scale = target.shape, int(swapped), module.fitting.scale
        self._product = Product(module, module.scaling, swapped=swapped)
        magnitude = module.spec("lora_magnitude_vector")
        if magnitude.numel != target.shape[self._axis]:
            raise module.misfit(target)
        self.nbytes = self._product.nbytes + 4 * magnitude.numel
        self._magnitude = Once(lambda: module.floats("lora_magnitude_vector").reshape(-1))
        self._read = partial(module.fitting.read, target.name)
        self._factors = Once(self._measure)

    def apply(self, values: Floats, start: int) -> None:
        unchanged = values.copy() if self._scale != 1.0 else values
        self._product.apply(values, start)
        multiply_along(values, start, self._factors(), self._shape, self._axis)
        towards(values, unchanged, self._scale)

    def _measure(self) -> Floats:
        """The magnitude over the norm of each output feature; 0 for those that are zero."""
        norms = np.sqrt(self._squares())
        ratios = np.divide(self._magnitude(), norms, out=np.zeros_like(norms), where=norms > 0)
        return ratios.astype(np.float32)

    def _squares(self) -> NDArray[np.float64]:
        """Sum of the squares of V for each output feature, over chunks of whole rows."""
        rows, columns = self._shape[0], int(np.prod(self._shape[1:]))
        squares = np.zeros(self._shape[self._axis])
        count = max(_CHUNK // max(columns, 1), 1)
        for row in range(0, rows, count):
            stop = min(row + count, rows)
            values = np.empty((stop - row) * columns, np.float32)
            self._read(row * columns, stop * columns, values)
            self._product.apply(values, row * columns)
            chunk = values.reshape(stop - row, columns).astype(np.float64) ** 2
            if self._axis == 0:
                squares[row:stop] = chunk.sum(axis=1)
            else:
                squares += chunk.sum(axis=0)
        return squares


@adapter_kind(
    "dora", *_ROLES, peft_types=("LORA",), applies=lambda module: bool(module.settings.config.get("use_dora"))
)
def dora(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """m (W + s B A) / |W + s B A|, with one magnitude m and one norm per output feature."""
    for module, target, swapped in oriented(modules):
        module.spec("lora_magnitude_vector")
        yield target.name, _Rescaled(module, target, swapped=swapped)
        yield from shifted_bias(module)
