"""A function of a module and a batch as a function of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


class Call(nn.Module):
    """Calls `fn(module, batch)`; tied parameters stay tied when their values are replaced."""

    def __init__(self, fn: Callable[[nn.Module, Any], Tensor], module: nn.Module) -> None:
        super().__init__()
        self.fn, self.module = fn, module

    def forward(self, batch: Any) -> Tensor:
        return self.fn(self.module, batch)

    def at(self, weights: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The outputs for other values of the parameters, by name."""
        return functional_call(self, {f"module.{name}": value for name, value in weights.items()}, (batch,))
