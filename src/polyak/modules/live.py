"""Modules with exchangeable weights, by the names of tensors in a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..checkpoint import Checkpoint
from ..errors import Mismatch, NotFinite, suggestion

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Weights: TypeAlias = "Mapping[str, Any] | Checkpoint"


class LiveModel:
    """A torch module in evaluation mode, with the bijection from its weights to the tensors of a checkpoint.

    Attributes:
        module: The module; its weights change in place, so it stays the same object.
        names: From parameters and persistent buffers to tensors.  Tied parameters appear once; the task's head does
            not appear, since it is not exchanged.
        heads: The parameters and buffers of the task's own head.
        unused: Tensors of the checkpoint that are not exchanged: heads, and tensors that the module does not have.
        label: Its name in errors.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Mapping[str, str],
        *,
        heads: Collection[str] = (),
        unused: Collection[str] = (),
        label: str = "the model",
    ) -> None:
        self.module = module.eval()
        self.names, self.heads, self.unused, self.label = dict(names), frozenset(heads), frozenset(unused), label

    @classmethod
    def of(cls, module: nn.Module, *, label: str = "the model") -> LiveModel:
        """A module whose tensors have the names of its own parameters and persistent buffers, all exchanged."""
        return cls(module, {name: name for name in entries(module)}, label=label)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The module's parameters and buffers, by the names of the checkpoint's tensors."""
        by_name = entries(self.module)  # read each time: a move to another device makes new buffers
        return {tensor: by_name[name] for name, tensor in self.names.items()}

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Those of `tensors` that have gradients."""
        from torch import nn

        return {name: tensor for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter)}

    def read(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of the weights, by the names of the checkpoint's tensors."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.tensors.items()}

    def load(self, weights: Weights, *, partial: bool = False) -> None:
        """Load weights into the module, in place.

        Args:
            weights: A checkpoint, or NumPy arrays or torch tensors by the names of the checkpoint's tensors.  Names in
                `unused` are skipped.
            partial: Leave missing weights unchanged; otherwise a missing one is an error.

        Raises:
            Mismatch: a name is unknown or missing, or a shape differs; nothing has changed then.
            NotFinite: a tensor holds NaN or infinity.  Some tensors may have changed; `swapped` restores them.
        """
        own = self.tensors
        for name in self._checked(weights, own, partial=partial):
            _fill(own[name], _value(weights, name), name, self.label)

    @contextmanager
    def swapped(self, weights: Weights, *, partial: bool = False) -> Generator[nn.Module, None, None]:
        """The module with other weights inside a `with`; its own are restored, on failure too.

        Args:
            weights: As for `load`.
            partial: As for `load`.
        """
        own = self.tensors
        before = {name: own[name].detach().clone() for name in self._checked(weights, own, partial=partial)}
        try:
            self.load(weights, partial=partial)
            yield self.module
        finally:
            for name, values in before.items():
                _copy(own[name], values)

    def share(self, other: LiveModel) -> None:
        """Share the memory of another model's weights, so that several tasks use one body.

        Raises:
            Mismatch: the two do not have the same tensors.
        """
        own, theirs = self.tensors, other.tensors
        for name in self._checked(theirs, own, partial=False):
            own[name].data = theirs[name].data

    def _checked(self, weights: Weights, own: Mapping[str, Tensor], *, partial: bool) -> list[str]:
        """The names to load, in the order of the module."""
        loaded = weights.specs if isinstance(weights, Checkpoint) else weights
        aliases = weights.ties if isinstance(weights, Checkpoint) else {}
        for name in loaded:
            if name not in own and name not in self.unused:
                raise Mismatch(f"{self.label} has no tensor {name!r}. {suggestion(name, own)}")
        missing = [name for name in own if name not in loaded and name not in aliases]
        if missing and not partial:
            raise Mismatch(f"{len(missing)} tensors are missing for {self.label}: {listed(missing)}.")
        names = [name for name in own if name not in missing]
        for name in names:
            shape, actual = tuple(own[name].shape), _shape(weights, name)
            if shape != actual:
                raise Mismatch(f"{name!r} is {actual}, but {self.label} needs {shape}.")
        return names


def entries(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, tied ones once."""
    kept = module.state_dict().keys()
    return dict(module.named_parameters()) | {name: buffer for name, buffer in module.named_buffers() if name in kept}


def _shape(weights: Weights, name: str) -> tuple[int, ...]:
    return weights.spec(name).shape if isinstance(weights, Checkpoint) else tuple(np.shape(weights[name]))


def _value(weights: Weights, name: str) -> Any:
    return weights.read(name) if isinstance(weights, Checkpoint) else weights[name]


def _fill(target: Tensor, value: Any, name: str, label: str) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        wide = np.float32 if target.is_floating_point() and array.dtype != np.float64 else array.dtype
        value = torch.from_numpy(np.require(array, wide, ["C", "W"]))
    if target.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise NotFinite(f"{name!r} holds NaN or infinity; {label} cannot be run with it.")
    _copy(target, value)


def _copy(target: Tensor, value: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        target.copy_(value)


def listed(names: list[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
