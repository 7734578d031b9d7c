"""The tensors of a module that are averaged, by name: local shards, tied ones once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from ...errors import Mismatch, SettingError
from ._sharded import is_sharded, local

if TYPE_CHECKING:
    from torch import Tensor, nn

Buffers = Literal["copied", "averaged", "remeasured"]


class Selection:
    """The floating-point parameters of a module, and its buffers if they are averaged.

    Attributes:
        module: The module, without the wrappers of DistributedDataParallel and torch.compile.
        shapes: The global shape of each tensor, by name.
    """

    def __init__(self, module: nn.Module, exclude: Sequence[str], *, trainable_only: bool, buffers: Buffers) -> None:
        self.module = unwrapped(module)
        self._buffers = buffers == "averaged"
        patterns = [_compiled(pattern) for pattern in exclude]
        chosen = {
            name: entry
            for name, entry in self._entries()
            if entry.is_floating_point()
            and not (trainable_only and _is_frozen(entry))
            and not any(pattern.search(name) for pattern in patterns)
        }
        if not any(True for _ in self.module.parameters()):
            raise Mismatch(f"{type(module).__name__} has no parameters: there is nothing to average.")
        if not chosen:
            kind = "trainable " if trainable_only else ""
            left_out = f" that {', '.join(map(repr, exclude))} leave" if exclude else ""
            raise Mismatch(f"{type(module).__name__} has no {kind}floating-point parameters{left_out} to average.")
        self.shapes = {name: tuple(entry.shape) for name, entry in chosen.items()}

    def entries(self) -> dict[str, Tensor]:
        """The parameters themselves, by name.

        Raises:
            Mismatch: the module has changed: a tensor is gone, or has another shape.
        """
        every = dict(self._entries())
        for name, shape in self.shapes.items():
            if name not in every:
                raise Mismatch(
                    f"the model no longer has the tensor {name!r}. Make a new Averager for the changed model."
                )
            if tuple(every[name].shape) != shape:
                raise Mismatch(
                    f"{name!r} of the model has shape {tuple(every[name].shape)}, and {shape} when the averager was "
                    "made. Change the model first (resize its embeddings, replace its head), then make the Averager."
                )
        return {name: every[name] for name in self.shapes}

    def tensors(self) -> list[Tensor]:
        """The local values, in the order of `shapes`; they share memory with the module."""
        return [local(entry) for entry in self.entries().values()]

    @property
    def is_sharded(self) -> bool:
        """True if parameters are distributed over processes."""
        return any(is_sharded(entry) for _, entry in self._entries())

    def _entries(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.module.named_parameters()
        if self._buffers:
            yield from self.module.named_buffers()


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of DistributedDataParallel, DataParallel and torch.compile."""
    from torch.nn import DataParallel
    from torch.nn.parallel import DistributedDataParallel

    while True:
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = getattr(module, "_orig_mod")  # noqa: B009  not declared by torch
        else:
            return module


def _is_frozen(entry: Tensor) -> bool:
    from torch import nn

    return isinstance(entry, nn.Parameter) and not entry.requires_grad


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SettingError(
            f"`exclude` of an averager takes regular expressions; {pattern!r} is not one ({error})."
        ) from error
