"""A LoRA adapter applied to its base, as a checkpoint that is computed while it is read and never stored."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, SettingError
from . import formats
from ._api import DTYPES, Bytes, Checkpoint, Stamp, TensorSpec
from .folder import inside
from .ties import config_of, left_out
from .views import picked

if TYPE_CHECKING:
    from ._peft import AdapterNames, AdapterSettings

F32 = DTYPES["F32"]
Floats = NDArray[np.float32]
_T = TypeVar("_T")


def with_lora(base: Checkpoint, adapter: str | Path, *, scale: float = 1.0) -> Checkpoint:
    """A PEFT LoRA adapter on its base: W + scale * s * (B @ A), in float32 and unrounded.

    s is alpha / r, or alpha / sqrt(r) with `use_rslora`; `rank_pattern` and `alpha_pattern` match the end of a
    module's name as they do in PEFT. Tensors that the adapter trained whole (`modules_to_save`, biases,
    resized embeddings) replace the base's, for any `scale`; every other tensor is the base's. Two tensors that are
    tied in the base, by its file or by its config, are untied if the adapter changes one of them.

    Args:
        base: The model that the adapter was trained on. Its tensor names may have a prefix that the adapter's lack, or
            lack a prefix that the adapter's have.
        adapter: A folder with adapter_config.json and adapter_model.safetensors or adapter_model.bin.
        scale: Factor of the low-rank updates.

    Raises:
        CheckpointError: the adapter is damaged or does not fit the base.
        UnsupportedFormat: it is not plain LoRA, or was initialised by changing the base.
        SettingError: `scale` is not a finite number.

    Source: Hu et al., 2021. LoRA: Low-Rank Adaptation of Large Language Models. arXiv:2106.09685
    """
    from ._peft import read_adapter_settings, sort_adapter_names

    if not math.isfinite(scale):
        raise SettingError(f"'scale' must be a finite number; got {scale}.")
    folder = Path(adapter)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not an adapter folder.")
    settings = read_adapter_settings(folder)
    factors = open_factors(folder)
    names = sort_adapter_names([*factors.specs, *factors.ties], settings.path)
    return _LoraView(base, factors, settings, names, scale)


def open_factors(folder: Path) -> Checkpoint:
    """Open the tensors of an adapter.

    Raises:
        CheckpointError: there are none, or their file is damaged.
    """
    for suffix in formats.suffixes_in_folders():
        if (folder / (name := f"adapter_model{suffix}")).exists():
            return formats.registry.resolve(suffix).open(inside(folder, name))
    raise CheckpointError(f"{folder} has neither adapter_model.safetensors nor adapter_model.bin.")


@dataclass(frozen=True, slots=True)
class _Update:
    """Update of one tensor: scaling * left @ right, both as matrices.

    Attributes:
        left: The adapter's tensor whose rows are the rows of the update.
        right: The other factor.
        swapped: True if the factors are A^T and B^T, since the weight is stored transposed.
        scaling: `scale` * s.
    """

    left: str
    right: str
    swapped: bool
    scaling: float


class _LoraView(Checkpoint):
    def __init__(
        self, base: Checkpoint, factors: Checkpoint, settings: AdapterSettings, names: AdapterNames, scale: float
    ) -> None:
        untold = left_out(base, config_of(base))
        stored = {name: name for name in (*base.specs, *base.ties)}
        self._base = picked(base, stored | untold) if untold else base
        self._factors, self.inner = factors, base
        self.label = f"{base.label} + {settings.path.parent}"
        self.metadata, self.folder = base.metadata, base.folder
        self.stamps = (*base.stamps, *factors.stamps, Stamp.of(settings.path, settings.path.read_bytes()))
        self._loaded: dict[str, tuple[Floats, Floats]] = {}
        self._lock = threading.Lock()
        finder = _Finder([*self._base.specs, *self._base.ties], self.label)
        self._updates = _unique(_updates(self._base, factors, settings, names, finder, scale), self.label)
        self._replaced = _unique(_replacements(self._base, factors, settings, names, finder), self.label)
        low_rank = {factor for update in self._updates.values() for factor in (update.left, update.right)}
        self.held_nbytes = base.held_nbytes + sum(4 * factors.spec(factor).numel for factor in low_rank)
        kept = {
            alias: holder
            for alias, holder in self._base.ties.items()
            if not self._changed(alias) and not self._changed(holder)
        }
        self.ties = {alias: holder for alias, holder in kept.items() if alias not in untold}
        names_of_all = dict.fromkeys([*self._base.specs, *self._base.ties, *self._replaced])
        self.specs = {name: self._spec_of(name) for name in names_of_all if name not in kept}

    def _changed(self, name: str) -> bool:
        return name in self._updates or name in self._replaced

    def _spec_of(self, name: str) -> TensorSpec:
        spec = self._source(name)[1]
        dtype = F32 if name in self._updates else spec.dtype
        in_base = name in self._base.specs or name in self._base.ties
        rests = self._base.spec(name).stored if in_base else spec.stored
        return TensorSpec(name, dtype, spec.shape, rests if rests != dtype else None)

    def _source(self, name: str) -> tuple[Checkpoint, TensorSpec]:
        """The checkpoint and entry of the values to which a low-rank update may be added."""
        replacement = self._replaced.get(name)
        if replacement is None:
            return self._base, self._base.spec(name)
        return self._factors, self._factors.spec(replacement)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        source, spec = self._source(name)
        update = self._updates.get(name)
        if update is None:
            source.read_into(spec.name, start, stop, out)
            return
        from ._low_rank import add_product

        left, right = self._factors_of(name, update)
        values = out.view(np.float32)
        read_floats(source, spec, start, stop, values)
        add_product(values, start, left, right, np.float32(update.scaling))

    def _factors_of(self, name: str, update: _Update) -> tuple[Floats, Floats]:
        with self._lock:
            if name not in self._loaded:
                left, right = (self._as_matrix(factor) for factor in (update.left, update.right))
                if update.swapped:
                    left, right = left.T, right.T
                self._loaded[name] = np.ascontiguousarray(left), np.ascontiguousarray(right)
            return self._loaded[name]

    def _as_matrix(self, factor: str) -> Floats:
        spec = self._factors.spec(factor)
        values = np.empty(spec.numel, np.float32)
        read_floats(self._factors, spec, 0, spec.numel, values)
        return values.reshape(spec.shape[0], -1)

    def close(self) -> None:
        self._base.close()
        self._factors.close()


def _unique(pairs: Iterable[tuple[str, _T]], label: str) -> dict[str, _T]:
    by_name: dict[str, _T] = {}
    for name, value in pairs:
        if name in by_name:
            raise CheckpointError(f"{label}: two modules of the adapter are for {name!r}.")
        by_name[name] = value
    return by_name


def read_floats(source: Checkpoint, spec: TensorSpec, start: int, stop: int, out: Floats) -> None:
    """Read elements [start, stop) of a floating tensor as float32."""
    if spec.dtype == F32:
        source.read_into(spec.name, start, stop, out.view(np.uint8))
        return
    stored = np.empty((stop - start) * spec.dtype.itemsize, np.uint8)
    source.read_into(spec.name, start, stop, stored)
    if spec.dtype.name == "BF16":  # the upper half of a float32
        np.left_shift(stored.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        out[:] = stored.view(spec.dtype.numpy)


def _updates(
    base: Checkpoint, factors: Checkpoint, settings: AdapterSettings, names: AdapterNames, finder: _Finder, scale: float
) -> Iterable[tuple[str, _Update]]:
    fits: list[tuple[str, str, set[bool]]] = []
    for module, (a, b) in names.factors.items():
        target = finder.find(f"{module}.weight")
        fits.append(
            (
                module,
                target,
                _orientations(module, base.spec(target), factors.spec(a), factors.spec(b), settings, names),
            )
        )
    transposed = any(fit == {True} for module, _, fit in fits if module not in names.embeddings)
    for module, target, fit in fits:
        if len(fit) == 2 and transposed and not settings.fan_in_fan_out:
            raise CheckpointError(
                f"{settings.path}: {module!r} is square, and other modules of this adapter are stored transposed while "
                "fan_in_fan_out is false. Set it to true if this module is a Conv1D (GPT-2)."
            )
        swapped = settings.fan_in_fan_out if len(fit) == 2 else fit == {True}
        a, b = names.factors[module]
        left, right = (a, b) if swapped else (b, a)
        yield target, _Update(left, right, swapped, scale * settings.scaling_of(module))


def _orientations(
    module: str, weight: TensorSpec, a: TensorSpec, b: TensorSpec, settings: AdapterSettings, names: AdapterNames
) -> set[bool]:
    """Orientations in which B @ A fits the weight: as it is (False), transposed (True), or both.

    Shapes: A (r, in), B (out, r), weight (out, in); of a convolution A (r, in, ...), B (out, r, 1, ...), weight
    (out, in, ...); of an embedding A (r, vocabulary), B (size, r), weight (vocabulary, size).
    """
    if not weight.dtype.floating or not a.dtype.floating or not b.dtype.floating:
        raise CheckpointError(
            f"{settings.path}: {module!r} must be floating-point; it is {weight.dtype} in the base, "
            f"A is {a.dtype} and B {b.dtype}."
        )
    rank = settings.rank_of(module)
    fit: set[bool] = set()
    if a.shape[:1] == (rank,) and b.shape[1:2] == (rank,) and len(a.shape) == len(b.shape) == len(weight.shape) >= 2:
        if set(b.shape[2:]) <= {1} and weight.shape == (b.shape[0], *a.shape[1:]) and module not in names.embeddings:
            fit.add(False)
        if weight.shape == (*a.shape[1:], b.shape[0]) and len(weight.shape) == 2:
            fit.add(True)
    if not fit:
        raise CheckpointError(
            f"{settings.path}: {module!r} has A {list(a.shape)} and B {list(b.shape)}, which do not fit together, the "
            f"rank {rank} of the configuration, or the base's weight {list(weight.shape)}."
        )
    return fit


def _replacements(
    base: Checkpoint, factors: Checkpoint, settings: AdapterSettings, names: AdapterNames, finder: _Finder
) -> Iterable[tuple[str, str]]:
    for name, replacement in names.replaced.items():
        module = name.rpartition(".")[0]
        # The head of a task is often missing from the base.
        if finder.lacks(name) and any(module == m or module.endswith(f".{m}") for m in settings.modules_to_save):
            yield name, replacement
            continue
        target = finder.find(name)
        if factors.spec(replacement).shape != base.spec(target).shape:
            raise CheckpointError(
                f"{settings.path}: {replacement!r} is {list(factors.spec(replacement).shape)} and replaces {target!r}, "
                f"which is {list(base.spec(target).shape)} in {base.label}. Resize the base first."
            )
        yield target, replacement


class _Finder:
    """Finds the tensor of the base that an adapter refers to, where one of the two names has an extra prefix."""

    def __init__(self, names: list[str], label: str) -> None:
        self._names, self._label = dict.fromkeys(names), label
        self._by_suffix: dict[str, list[str]] = {}

    def lacks(self, name: str) -> bool:
        return not self._candidates(name)

    def find(self, name: str) -> str:
        candidates = self._candidates(name)
        if len(candidates) == 1:
            return candidates[0]
        few = ", ".join(map(repr, candidates[:5] or list(self._names)[:5]))
        problem = "could be any of" if candidates else "is not in the base, which has"
        raise CheckpointError(f"{self._label}: the adapter's {name!r} {problem} {few} ... Is this the adapter's base?")

    def _candidates(self, target: str) -> list[str]:
        if target in self._names:
            return [target]
        if not self._by_suffix:
            for name in self._names:
                for suffix in _suffixes(name):
                    self._by_suffix.setdefault(suffix, []).append(name)
        shorter = [suffix for suffix in _suffixes(target) if suffix in self._names and suffix.count(".")]
        return [*shorter, *self._by_suffix.get(target, [])]


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]
