"""Changes of tensors by adapters, computed for any range of entries in float32."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from .._api import Checkpoint, TensorSpec
from .._floats import Floats, read_floats
from .._peft import AdapterSettings, empty_message

T = TypeVar("T")

_BLOCK = 65_536  # entries whose indices are computed at a time


class Change(ABC):
    """The change of one tensor of the base.

    The bits of an entry do not depend on the range in which it is computed.

    Attributes:
        nbytes: Memory of what stays loaded, in bytes.
        keeps_ties: True if the tensors that are tied to this one change with it; otherwise they are untied.
    """

    nbytes: int
    keeps_ties: bool = False

    @abstractmethod
    def apply(self, values: Floats, start: int) -> None:
        """Change entries of the tensor in place, in row-major order.

        Args:
            values: The unchanged entries, from `start` on.
            start: Index of the first one.
        """


class Once(Generic[T]):
    """A value that is computed at the first call, by one thread."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute, self._lock = compute, threading.Lock()
        self._values: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if not self._values:
                self._values.append(self._compute())
            return self._values[0]


@dataclass(frozen=True)
class Fitting:
    """An adapter and the base that it is applied to.

    Attributes:
        tensors: The tensors of the adapter.
        settings: Its configuration.
        scale: Factor of its changes.
        names: The names of the base's tensors.
        find: Finds the name of the base's tensor that the adapter refers to.
        original: The entry of one of the base's tensors, by name, before the change.
        read: Reads entries [start, stop) of it as float32: name, start, stop, destination.
    """

    tensors: Checkpoint
    settings: AdapterSettings
    scale: float
    names: Mapping[str, None]
    find: Callable[[str], str]
    original: Callable[[str], TensorSpec]
    read: Callable[[str, int, int, Floats], None]


@dataclass(frozen=True)
class AdaptedModule:
    """One adapted module.

    Attributes:
        name: Its name in the adapter.
        by_role: The stored names of its tensors, by role.
        fitting: The adapter and its base.
    """

    name: str
    by_role: Mapping[str, str]
    fitting: Fitting = field(repr=False)

    @property
    def settings(self) -> AdapterSettings:
        return self.fitting.settings

    @property
    def scaling(self) -> float:
        """s, without the `scale` of the recipe."""
        return self.settings.scaling_of(self.name)

    def spec(self, role: str) -> TensorSpec:
        """The entry of one of its tensors.

        Raises:
            CheckpointError: it is missing, empty or not floating-point.
        """
        if role not in self.by_role:
            has = ", ".join(sorted(self.by_role))
            raise CheckpointError(f"{self.settings.path}: {self.name!r} has {has} without its partner {role}.")
        spec = self.fitting.tensors.spec(self.by_role[role])
        if not spec.numel:
            raise CheckpointError(empty_message(spec, str(self.settings.path)))
        if not spec.dtype.floating:
            raise CheckpointError(f"{self.settings.path}: {spec.name!r} must be floating-point; it is {spec.dtype}.")
        return spec

    def floats(self, role: str) -> Floats:
        """Read one of its tensors, in its shape."""
        spec = self.spec(role)
        values = np.empty(spec.numel, np.float32)
        read_floats(self.fitting.tensors, spec, 0, spec.numel, values)
        return values.reshape(spec.shape)

    def target(self, leaf: str = "weight") -> TensorSpec:
        """The base's tensor that it changes, with its name in the base.

        Raises:
            CheckpointError: there is none, or it is not floating-point.
        """
        name = self.fitting.find(f"{self.name}.{leaf}")
        spec = self.fitting.original(name)
        if not spec.dtype.floating:
            raise CheckpointError(
                f"{self.settings.path}: {self.name!r} must be floating-point; it is {spec.dtype} in the base."
            )
        return spec

    def misfit(self, target: TensorSpec) -> CheckpointError:
        """The error of a module whose tensors do not fit its weight."""
        shapes = ", ".join(f"{role} {list(self.spec(role).shape)}" for role in self.by_role)
        return CheckpointError(
            f"{self.settings.path}: {self.name!r} has {shapes}, which do not fit the base's weight "
            f"{list(target.shape)}."
        )


def multiply_along(values: Floats, start: int, vector: Floats, shape: tuple[int, ...], axis: int) -> None:
    """Multiply entries of a tensor by the entries of a vector along one axis, in place.

    Args:
        values: Entries of the tensor, from `start` on.
        start: Index of the first one.
        vector: One factor per index of the axis.
        shape: The shape of the tensor.
        axis: The axis.
    """
    for at, index in _indices(values.size, start, shape, axis):
        values[at : at + index.size] *= vector[index]


def _indices(count: int, start: int, shape: tuple[int, ...], axis: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    inner = int(np.prod(shape[axis + 1 :]))
    for at in range(0, count, _BLOCK):
        entries = np.arange(start + at, start + min(at + _BLOCK, count))
        yield at, entries // inner % shape[axis]


def towards(changed: Floats, unchanged: Floats, scale: float) -> None:
    """changed <- unchanged + scale * (changed - unchanged), in place."""
    if scale != 1.0:
        changed -= unchanged
        changed *= np.float32(scale)
        changed += unchanged
