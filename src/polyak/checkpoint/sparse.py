"""Compact files of sparse models: per tensor one bit per entry, and the entries that are not zero.

The container is safetensors. A tensor NAME of n entries of which v are not zero is stored as `NAME:bits`, ceil(n / 8)
bytes with the lowest bit first, and `NAME:values`, v entries; its shape is in the metadata. A tensor that would not get
smaller is stored as it is. Reading gives the same bytes back, negative zeros too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ..storage import sync_file, sync_folder, writing
from ._api import DTYPES, Bytes, Checkpoint, TensorSpec
from .contents import parse_json
from .safetensors import SafetensorsFile, layout

SPARSE_KIND = "sparse"  # value of `polyak` in the metadata
BITS, VALUES = ":bits", ":values"
_BLOCK = 1 << 15  # entries of which the number of values before them is remembered


class SparseFile(Checkpoint):
    """A compact file of a sparse model.

    Attributes:
        nonzeros: Number of entries that are not zero, of the tensors that are stored sparse; from the header.

    Raises:
        CheckpointError: it is not such a file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = SafetensorsFile(path)
        self.label, self.folder, self.stamps = self._file.label, self._file.folder, self._file.stamps
        shapes = _shapes(self._file)
        plain = {n: s for n, s in self._file.specs.items() if not n.endswith((BITS, VALUES))}
        self.specs = plain | {name: self._spec(name, shape) for name, shape in shapes.items()}
        if len(plain) + 2 * len(shapes) != len(self._file.specs):
            raise CheckpointError(f"{path} is damaged: its tensors are not those of its metadata.")
        known = ("polyak", "shapes", "ties")
        self.metadata = {key: text for key, text in self._file.metadata.items() if key not in known}
        self.ties = _texts(self._file, "ties")
        self.nonzeros = {name: self._file.specs[f"{name}{VALUES}"].numel for name in shapes}
        self._ranks: dict[str, npt.NDArray[np.int64]] = {}

    def _spec(self, name: str, shape: tuple[int, ...]) -> TensorSpec:
        bits, values = (self._file.specs.get(f"{name}{suffix}") for suffix in (BITS, VALUES))
        if bits is None or values is None or bits.dtype.name != "U8" or bits.numel != -(-prod(shape) // 8):
            raise CheckpointError(f"{self.label} is damaged: the bits or values of {name!r} are missing or misshapen.")
        return TensorSpec(name, values.dtype, shape)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        if name not in self.nonzeros:
            self._file.read_into(name, start, stop, out)
            return
        first = start // _BLOCK * _BLOCK
        bits = self._bits(name, first, stop)
        before = self._rank(name)[first // _BLOCK] + int(bits[: start - first].sum())
        chosen = np.flatnonzero(bits[start - first :])
        size = self.specs[name].dtype.itemsize
        values = np.empty(len(chosen) * size, np.uint8)
        self._file.read_into(f"{name}{VALUES}", int(before), int(before) + len(chosen), values)
        out[:] = 0
        out.reshape(-1, size)[chosen] = values.reshape(-1, size)

    def _bits(self, name: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """The bits of entries, from a multiple of 8."""
        packed = np.empty(-(-stop // 8) - start // 8, np.uint8)
        self._file.read_into(f"{name}{BITS}", start // 8, -(-stop // 8), packed)
        return np.unpackbits(packed, bitorder="little")[: stop - start]

    def _rank(self, name: str) -> npt.NDArray[np.int64]:
        """The number of values before each block."""
        if name not in self._ranks:
            numel = self.specs[name].numel
            counts = [
                int(self._bits(name, start, min(start + _BLOCK, numel)).sum()) for start in range(0, numel, _BLOCK)
            ]
            if sum(counts) != self.nonzeros[name]:
                raise CheckpointError(
                    f"{self.label} is damaged: {name!r} has {self.nonzeros[name]} values for {sum(counts)} bits."
                )
            self._ranks[name] = np.cumsum([0, *counts])
        return self._ranks[name]

    def close(self) -> None:
        self._file.close()


def write_sparse(model: Checkpoint, path: Path) -> None:
    """Write a model as a compact file, which appears whole or not at all.

    One tensor is in memory at a time.

    Raises:
        OutputError: the file cannot be written.
    """
    plans = {spec.name: _plan(model, spec) for spec in model.specs.values()}
    shapes = {name: list(model.specs[name].shape) for name, specs in plans.items() if len(specs) == 2}
    metadata = {"polyak": SPARSE_KIND, "shapes": json.dumps(shapes), "ties": json.dumps(dict(model.ties))}
    head, offsets = layout([spec for specs in plans.values() for spec in specs], {**model.metadata, **metadata})
    draft = path.with_name(f".{path.name}.unfinished")
    with writing(path):
        with draft.open("wb") as file:
            file.write(head)
            for name, specs in plans.items():
                for spec, data in zip(specs, _parts(model, name, sparse=len(specs) == 2), strict=True):
                    file.seek(offsets[spec.name])
                    file.write(data.tobytes())
            sync_file(file)
        draft.replace(path)
        sync_folder(path.parent)


def _plan(model: Checkpoint, spec: TensorSpec) -> tuple[TensorSpec, ...]:
    """The entries of a tensor in the file: bits and values, or itself where that is smaller."""
    count = int(_present(_entries(model, spec.name)).sum())
    bits = TensorSpec(f"{spec.name}{BITS}", DTYPES["U8"], (-(-spec.numel // 8),))
    values = TensorSpec(f"{spec.name}{VALUES}", spec.dtype, (count,))
    return (bits, values) if spec.numel and bits.nbytes + values.nbytes < spec.nbytes else (spec,)


def _parts(model: Checkpoint, name: str, *, sparse: bool) -> tuple[npt.NDArray[Any], ...]:
    entries = _entries(model, name)
    if not sparse:
        return (entries,)
    present = _present(entries)
    return np.packbits(present, bitorder="little"), entries[present]


def _entries(model: Checkpoint, name: str) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor, (entries, bytes per entry)."""
    spec = model.specs[name]
    data = np.empty(spec.nbytes, np.uint8)
    model.read_into(name, 0, spec.numel, data)
    return data.reshape(-1, spec.dtype.itemsize)


def _present(entries: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return np.count_nonzero(entries, axis=1) > 0


def _shapes(file: SafetensorsFile) -> dict[str, tuple[int, ...]]:
    if file.metadata.get("polyak") != SPARSE_KIND:
        raise CheckpointError(f"{file.label} is not a compact file of a sparse model: polyak did not write it.")
    shapes = _mapping(file, "shapes")
    for name, shape in shapes.items():
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise CheckpointError(f"{file.label} is damaged: the shape of {name!r} is {shape!r:.80}.")
    return {name: tuple(shape) for name, shape in shapes.items()}


def _texts(file: SafetensorsFile, key: str) -> dict[str, str]:
    texts = _mapping(file, key)
    if not all(isinstance(text, str) for text in texts.values()):
        raise CheckpointError(f"{file.label} is damaged: its {key} are not text.")
    return dict(texts)


def _mapping(file: SafetensorsFile, key: str) -> Mapping[str, Any]:
    try:
        value = parse_json(file.metadata.get(key, "{}").encode())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.label} is damaged: its {key} are not a JSON object.")
    return value
