"""(IA)^3 (Liu et al., 2022. Few-Shot Parameter-Efficient Fine-Tuning. arXiv:2205.05638)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from .._api import TensorSpec
from .._floats import Floats
from .._peft import matches_module
from . import adapter_kind
from ._change import AdaptedModule, Change, Once, multiply_along, towards


class _Scaled(Change):
    """Multiplies by one factor per index of an axis."""

    def __init__(self, module: AdaptedModule, target: TensorSpec, axis: int) -> None:
        size = target.shape[axis]
        spec = module.spec("ia3_l")
        if spec.numel != size:
            raise module.misfit(target)
        self.nbytes = 4 * size
        self._shape, self._axis, self._scale = target.shape, axis, module.fitting.scale
        self._vector = Once(lambda: module.floats("ia3_l").reshape(-1))

    def apply(self, values: Floats, start: int) -> None:
        unchanged = values.copy() if self._scale != 1.0 else values
        multiply_along(values, start, self._vector(), self._shape, self._axis)
        towards(values, unchanged, self._scale)


@adapter_kind("ia3", "ia3_l", peft_types=("IA3",))
def ia3(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """W and b times one factor per output feature; in `feedforward_modules`, W times one per input feature."""
    for module in modules:
        target = module.target()
        feedforward = _is_feedforward(module)
        if len(target.shape) < 2:
            raise module.misfit(target)
        transposed = module.settings.fan_in_fan_out and len(target.shape) == 2
        yield target.name, _Scaled(module, target, int(feedforward != transposed))
        bias = f"{target.name.removesuffix('.weight')}.bias"
        if not feedforward and bias in module.fitting.names:
            yield bias, _Scaled(module, module.fitting.original(bias), 0)


def _is_feedforward(module: AdaptedModule) -> bool:
    named: Any = module.settings.config.get("feedforward_modules") or []
    patterns = cast("list[str] | str", named)
    return matches_module(patterns, module.name, module.settings.path)
