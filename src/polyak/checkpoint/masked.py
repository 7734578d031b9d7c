"""The model of one task, reconstructed from a merge and a mask while it is read, and never stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from ._api import DTYPES, Bytes, Checkpoint, TensorSpec
from ._floats import read_floats
from .contents import inside
from .safetensors import SafetensorsFile

MASKS_KIND = "masks"  # value of `polyak` in the metadata of a file of masks
MASK, SCALE = ":mask", ":scale"  # suffixes of the names of a tensor's mask and scale
MASKS_FOLDER, HEADS_FOLDER = "masks", "heads"
F32, U8 = DTYPES["F32"], DTYPES["U8"]


def mask_spec(of: TensorSpec) -> TensorSpec:
    """Entry of a tensor's mask: one bit per entry, the lowest bit of a byte first."""
    return TensorSpec(f"{of.name}{MASK}", U8, (-(-of.numel // 8),))


def scale_spec(of: TensorSpec) -> TensorSpec:
    """Entry of the scale that goes with a tensor's mask."""
    return TensorSpec(f"{of.name}{SCALE}", F32, ())


def with_masks(unified: Checkpoint, base: Checkpoint, masks: str | Path) -> Checkpoint:
    """The model of one task: base + scale * (unified - base) where its mask is set, else the base; in float32.

    Tensors without a mask are the unified model's. Heads that the merge kept apart for this model
    (`heads/<model>.safetensors`, next to the folder of the masks) are added.

    Args:
        unified: The merged model.
        base: The model that the merged models were fine-tuned from.
        masks: `masks/<model>.safetensors` of the merge.

    Raises:
        CheckpointError: this is not a file of masks, or it does not fit the two models.
    """
    file = _masks_file(Path(masks))
    folder, name = file.path.parent.parent, f"{HEADS_FOLDER}/{file.path.name}"
    head = SafetensorsFile(inside(folder, name)) if (folder / name).exists() else None
    return _Masked(unified, base, file, head)


def is_masks(file: Checkpoint) -> bool:
    """Tell masks from weights, by the metadata."""
    return file.metadata.get("polyak") == MASKS_KIND


def open_task(masks: Path, base: Path | None = None, *, opener: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open a file of masks as the model of its task, from the merge in whose folder it is.

    Args:
        masks: `masks/<model>.safetensors` in the folder of the merge.
        base: The model that the merged models were fine-tuned from (default: the path that it had at the merge).
        opener: Opens the merge and its base: `polyak.checkpoint.open`.

    Raises:
        CheckpointError: the merge or its base is missing, or they do not fit together.
    """
    path = masks.absolute()
    file = _masks_file(path)
    origin = _base_of(file, path) if base is None else base
    return with_masks(opener(path.parent.parent), opener(origin), path)


def _masks_file(path: Path) -> SafetensorsFile:
    file = SafetensorsFile(path)
    if not is_masks(file):
        file.close()
        raise CheckpointError(f"{path} is not a file of masks: `emr` and `tall_masks` write them.")
    return file


def _base_of(file: SafetensorsFile, masks: Path) -> Path:
    stated = Path(file.metadata.get("base", ""))
    if not stated.is_absolute() or not stated.exists():
        raise CheckpointError(
            f"{masks} needs the base of its merge, which is not at {str(stated)!r}. State "
            f"its path: polyak bake {masks} OUT --base BASE, or polyak.with_masks(merged, base, masks)."
        )
    return stated


class _Masked(Checkpoint):
    def __init__(self, unified: Checkpoint, base: Checkpoint, masks: SafetensorsFile, heads: Checkpoint | None) -> None:
        self._unified, self._base, self._masks, self._heads, self.inner = unified, base, masks, heads, unified
        self.label, self.folder, self.ties = masks.label, unified.folder, unified.ties
        files = (unified, base, masks, *([heads] if heads else []))
        self.stamps = tuple(stamp for file in files for stamp in file.stamps)
        self._masked = {name.removesuffix(MASK) for name in masks.specs if name.endswith(MASK)}
        for name in self._masked:
            self._check(name)
        self.specs = {name: self._spec_of(spec) for name, spec in unified.specs.items()} | (
            dict(heads.specs) if heads else {}
        )
        self._scales: dict[str, np.float32] = {}
        self._lock = threading.Lock()

    def _check(self, name: str) -> None:
        merged = self._unified.specs.get(name)
        origin = self._base.specs.get(self._base.ties.get(name, name))
        if merged is None or origin is None or merged.shape != origin.shape:
            raise CheckpointError(
                f"{self.label} masks {name!r}, which is {_description(merged)} in {self._unified.label} and "
                f"{_description(origin)} in {self._base.label}. The masks fit only their own merge and its base."
            )
        expected = (mask_spec(merged), scale_spec(merged))
        if tuple(self._masks.specs.get(spec.name) for spec in expected) != expected:
            raise CheckpointError(
                f"{self.label} is damaged: mask or scale of {name!r} has another shape or is missing."
            )

    def _spec_of(self, spec: TensorSpec) -> TensorSpec:
        if spec.name not in self._masked:
            return spec
        return TensorSpec(spec.name, F32, spec.shape, spec.stored if spec.stored != F32 else None)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        if self._heads is not None and name in self._heads.specs:
            self._heads.read_into(name, start, stop, out)
        elif name not in self._masked:
            self._unified.read_into(name, start, stop, out)
        else:
            self._cut(name, start, stop, out)

    def _cut(self, name: str, start: int, stop: int, out: Bytes) -> None:
        values, scale = out.view(np.float32), self._scale_of(name)
        unified = np.empty(stop - start, np.float32)
        read_floats(self._base, self._base.spec(name), start, stop, values)
        read_floats(self._unified, self._unified.specs[name], start, stop, unified)
        if scale != 1:  # with a scale of one, the unified value itself, not a rounded sum
            unified = values + scale * (unified - values)
        np.copyto(values, unified, where=self._keeps(name, start, stop))

    def _keeps(self, name: str, start: int, stop: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        first, last = start // 8, -(-stop // 8)
        packed = np.empty(last - first, np.uint8)
        self._masks.read_into(f"{name}{MASK}", first, last, packed)
        bits = np.unpackbits(packed, bitorder="little")
        return bits[start - 8 * first : stop - 8 * first].view(np.bool_)

    def _scale_of(self, name: str) -> np.float32:
        with self._lock:
            if name not in self._scales:
                scale = np.float32(self._masks.read(f"{name}{SCALE}"))
                if not np.isfinite(scale):
                    raise CheckpointError(f"{self.label} is damaged: the scale of {name!r} is {scale}.")
                self._scales[name] = scale
            return self._scales[name]

    def close(self) -> None:
        for file in (self._unified, self._base, self._masks, self._heads):
            if file is not None:
                file.close()


def _description(spec: TensorSpec | None) -> str:
    return "not there" if spec is None else f"{spec.stored} {list(spec.shape)}"
