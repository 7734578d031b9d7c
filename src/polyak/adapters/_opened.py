"""Adapters as they lie on disk: their modules, each with its factors and scaling; and their products as checkpoints."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import (
    DTYPES,
    AdapterSettings,
    Bytes,
    Checkpoint,
    Stamp,
    TensorSpec,
    adapter_folder,
    empty_message,
    open_factors,
    read_adapter_settings,
    read_floats,
    sort_adapter_names,
)
from ..errors import CheckpointError, NotFinite, UnsupportedFormat

Floats = NDArray[np.float32]
CACHED = 4  # modules whose factors stay in memory: workers are rarely at more


@dataclass(frozen=True, slots=True)
class Module:
    """One adapted module: Delta = scaling * B @ A, both as matrices.

    Attributes:
        a: A, of shape (r, in) or (r, in, height, width).
        b: B, of shape (out, r) or (out, r, 1, 1).
        scaling: s = alpha / r, or alpha / sqrt(r).
        embedding: True for an embedding.
        transposed: True if the weight is stored as (in, out).
    """

    a: TensorSpec
    b: TensorSpec
    scaling: float
    embedding: bool
    transposed: bool

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that it changes."""
        shape = self.b.shape[0], *self.a.shape[1:]
        return shape[::-1] if self.transposed else shape

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes


class Adapter:
    """An adapter folder, opened: headers and configuration are read, factors are not.

    Attributes:
        name: Its name in the recipe.
        folder: Its folder.
        config: adapter_config.json as it is.
        settings: Its checked settings, as far as they matter for merging.
        modules: The adapted modules, by name.
        whole: Tensors that it keeps whole (`modules_to_save`, biases), by the name of the base's tensor.
        stamps: Its files as they were when it was opened.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, adapter_folder(folder)
        self.settings = read_adapter_settings(folder)
        self.config = self.settings.config
        self.tensors = open_factors(folder)
        names = sort_adapter_names([*self.tensors.specs, *self.tensors.ties], self.settings.path)
        self.modules = {
            module: _module(module, by_role, self.tensors, self.settings) for module, by_role in names.modules.items()
        }
        self.whole = {name: self.tensors.spec(stored) for name, stored in names.replaced.items()}
        self.stamps = *self.tensors.stamps, Stamp.of_contents(self.settings.path)

    @property
    def base(self) -> str | None:
        """The name of the base, as the configuration gives it."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    def rename(self, names: Mapping[str, str]) -> None:
        """Give modules and whole tensors other names: present name to new name; the rest stays."""
        self.modules = {names.get(name, name): module for name, module in self.modules.items()}
        self.whole = {names.get(name, name): spec for name, spec in self.whole.items()}

    def factors(self, module: str) -> tuple[Floats, Floats]:
        """B (out, r) and A (r, in), unscaled.

        Raises:
            NotFinite: one of them holds NaN or infinity.
        """
        pair = self.modules[module]
        return self._matrix(pair.b), self._matrix(pair.a)

    def _matrix(self, spec: TensorSpec) -> Floats:
        values = np.empty(spec.numel, np.float32)
        read_floats(self.tensors, spec, 0, spec.numel, values)
        if not np.isfinite(values).all():
            raise NotFinite(
                f"{spec.name!r} of {self.name} ({self.folder}) holds NaN or infinity. Leave that adapter out."
            )
        return values.reshape(spec.shape[0], -1)


def _module(name: str, by_role: Mapping[str, str], tensors: Checkpoint, settings: AdapterSettings) -> Module:
    embedding = "lora_embedding_A" in by_role or "lora_embedding_B" in by_role
    roles = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    kind = "target_parameters" if settings.config.get("target_parameters") else _more_than(by_role, settings)
    if kind:
        raise UnsupportedFormat(
            f"{settings.path}: {name!r} is more than a product of two factors ({kind}), so there is no adapter that "
            "the merge of several would be. Bake each adapter (`polyak lora bake BASE ADAPTER OUT`), then merge the "
            "models (`polyak merge`, with `base:`)."
        )
    for role in roles:
        if role not in by_role:
            raise CheckpointError(f"{settings.path}: {name!r} has {', '.join(by_role)} without its partner {role}.")
    a, b = (tensors.spec(by_role[role]) for role in roles)
    return _plain(name, a, b, settings, embedding)


def _more_than(by_role: Mapping[str, str], settings: AdapterSettings) -> str:
    """The kind of an adapter that is not plain LoRA; otherwise empty."""
    if settings.peft_type != "LORA":
        return settings.peft_type
    others = by_role.keys() - {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"}
    return "DoRA" if settings.config.get("use_dora") else ", ".join(sorted(others))


def _plain(name: str, a: TensorSpec, b: TensorSpec, settings: AdapterSettings, embedding: bool) -> Module:
    rank = settings.rank_of(name)
    for spec in (a, b):
        if not spec.numel:
            raise CheckpointError(empty_message(spec, str(settings.path)))
    fits = len(a.shape) == len(b.shape) >= 2 and a.shape[0] == b.shape[1] == rank and set(b.shape[2:]) <= {1}
    if not fits or not a.dtype.floating or not b.dtype.floating:
        raise CheckpointError(
            f"{settings.path}: {name!r} has A {a.dtype} {list(a.shape)} and B {b.dtype} {list(b.shape)}, which do not "
            f"fit together or the rank {rank} of the configuration."
        )
    transposed = embedding or (settings.fan_in_fan_out and len(a.shape) == 2)
    return Module(a, b, settings.scaling_of(name), embedding, transposed)


class Products(Checkpoint):
    """The updates of an adapter as a checkpoint of float32 tensors, computed while it is read.

    A module's tensor is called as the weight that it changes: `MODULE.weight`.  Tensors that the adapter keeps whole
    are there under the base's names.

    Args:
        adapter: The adapter.
        shapes: Every module with the shape of its weight; those that the adapter lacks are zero.
    """

    def __init__(self, adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._adapter, self.label, self.stamps = adapter, str(adapter.folder), adapter.stamps
        weights = {f"{module}.weight": shape for module, shape in shapes.items()}
        self._modules = {f"{module}.weight": module for module in shapes}
        whole = {name: TensorSpec(name, spec.dtype, spec.shape) for name, spec in adapter.whole.items()}
        self.specs = {name: TensorSpec(name, DTYPES["F32"], shape) for name, shape in weights.items()} | whole
        self._cached: OrderedDict[str, tuple[Floats, Floats]] = OrderedDict()
        self._lock = threading.Lock()

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        module = self._modules.get(name)
        if module is None:
            self._adapter.tensors.read_into(self._adapter.whole[name].name, start, stop, out)
            return
        out[:] = 0
        if module not in self._adapter.modules:
            return
        from ..checkpoint import add_product

        left, right = self._factors(module)
        add_product(out.view(np.float32), start, left, right, np.float32(self._adapter.modules[module].scaling))

    def _factors(self, module: str) -> tuple[Floats, Floats]:
        with self._lock:
            if module not in self._cached:
                b, a = self._adapter.factors(module)
                left, right = (a.T, b.T) if self._adapter.modules[module].transposed else (b, a)
                self._cached[module] = np.ascontiguousarray(left), np.ascontiguousarray(right)
                if len(self._cached) > CACHED:
                    self._cached.popitem(last=False)
            return self._cached[module]

    def close(self) -> None:
        self._adapter.tensors.close()


def updates(folder: str | Path) -> Checkpoint:
    """The update s B A of every weight that an adapter changes, as a checkpoint.

    Raises:
        CheckpointError: it is damaged, or of another kind.
    """
    adapter = Adapter(str(folder), Path(folder))
    return Products(adapter, {name: module.shape for name, module in adapter.modules.items()})


class Zeros(Checkpoint):
    """The base of adapters' products: tensors of zeros."""

    label = "nothing"

    def __init__(self, specs: Mapping[str, TensorSpec]) -> None:
        self.specs = dict(specs)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        out[:] = 0


def as_matrix(values: Any, module: Module) -> Any:
    """A weight's update as the matrix B @ A."""
    return values.reshape(module.shape).T if module.transposed else values.reshape(module.shape[0], -1)
