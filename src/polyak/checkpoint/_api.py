"""The checkpoint interface: a mapping from names to tensors that are read in ranges."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, suggestion

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DType:
    """Storage format of one element.

    Attributes:
        name: Its name in safetensors headers.
        itemsize: Bytes per element.
        floating: True for floating-point dtypes: their tensors are merged, others are copied.
    """

    name: str
    itemsize: int
    floating: bool

    def __repr__(self) -> str:
        return self.name

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of the same layout (from ml_dtypes where NumPy has none)."""
        plain = _NUMPY.get(self.name)
        if plain is not None:
            return np.dtype(plain)
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _ML_DTYPES[self.name]))


_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip

# In the order in which safetensors lays tensors out: widest first, so that every tensor is aligned.
DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        name: DType(name, size, floating)
        for name, size, floating in [
            ("U64", 8, False), ("I64", 8, False), ("F64", 8, True),
            ("U32", 4, False), ("I32", 4, False), ("F32", 4, True),
            ("U16", 2, False), ("I16", 2, False), ("BF16", 2, True), ("F16", 2, True),
            ("F8_E4M3", 1, True), ("F8_E5M2", 1, True), ("I8", 1, False), ("U8", 1, False), ("BOOL", 1, False),
        ]
    }
)  # fmt: skip
F32, F16, BF16, F64 = DTYPES["F32"], DTYPES["F16"], DTYPES["BF16"], DTYPES["F64"]

# The names that recipes, PyTorch and config.json use for the dtypes in which a result can be written.
DTYPE_NAMES: Mapping[str, DType] = MappingProxyType(
    {
        "float64": F64, "float32": F32, "float16": F16, "bfloat16": BF16,
        "float8_e4m3fn": DTYPES["F8_E4M3"], "float8_e5m2": DTYPES["F8_E5M2"],
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One entry of a checkpoint's header.

    Attributes:
        name: The tensor's name.
        dtype: The dtype in which `Checkpoint.read_into` delivers it.
        shape: Its shape; () for a scalar.
        rests_as: The dtype in which it is stored, if another: a LoRA view of a bfloat16 weight delivers float32,
            unrounded, but a merge of it is written as bfloat16 unless the recipe sets another dtype.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    rests_as: DType | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored(self) -> DType:
        return self.rests_as or self.dtype


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size, modification time and header digest of a file when it was opened, to detect later changes.

    Attributes:
        path: The file.
        size: Bytes.
        mtime_ns: Time of the last change, nanoseconds.
        header: Digest of the header bytes, in hexadecimal.
    """

    path: Path
    size: int
    mtime_ns: int
    header: str

    @classmethod
    def of(cls, path: Path, header: bytes) -> Self:
        import xxhash

        stat = os.stat(path)
        return cls(path, stat.st_size, stat.st_mtime_ns, xxhash.xxh3_128_hexdigest(header))

    def problem(self) -> str | None:
        """Describe how the file has changed, or return None."""
        try:
            stat = os.stat(self.path)
        except OSError as error:
            return f"{self.path} can no longer be read ({error.strerror})"
        if stat.st_size != self.size:
            return f"{self.path} had {self.size} bytes and now has {stat.st_size}"
        if stat.st_mtime_ns != self.mtime_ns:
            return f"{self.path} was written to"
        return None


class Checkpoint(ABC):
    """Tensors by name, read in ranges: from a file, a sharded folder, memory, or a view of another checkpoint.

    Opening one reads headers only. Reading is safe from any number of threads.

    Attributes:
        label: Its name in errors and reports: usually its path.
        specs: The header: one entry per tensor, in the order of the file.
        metadata: The free-form strings of the header.
        ties: Names that share another tensor's memory, each with the name that holds the values.
            They have no entry of their own in `specs`.
        folder: The folder of its config and tokenizer, if it has one.
        stamps: The files that it reads, as they were when it was opened.
        inner: The checkpoint that it is a view of, if it is a view.
        held_nbytes: Memory that stays allocated once all of it has been read, in bytes.
    """

    label: str
    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str] = MappingProxyType({})
    ties: Mapping[str, str] = MappingProxyType({})
    folder: Path | None = None
    stamps: tuple[Stamp, ...] = ()
    inner: Checkpoint | None = None
    held_nbytes: int = 0

    @abstractmethod
    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        """Read elements [start, stop) of a tensor, in row-major order, into `out`, in the dtype of `specs[name]`.

        Args:
            name: A key of `specs`.
            start: First element.
            stop: One past the last element; at most the tensor's `numel`.
            out: Contiguous, exactly (stop - start) * itemsize bytes.

        Raises:
            CheckpointError: the file is now shorter than its header states.
        """

    def close(self) -> None:  # noqa: B027  most checkpoints hold nothing that needs closing
        """Close the files. Reading afterwards is an error."""

    def over(self, swap: Callable[[Checkpoint], Checkpoint]) -> Self:
        """The same view of the checkpoints that `swap` returns; the object itself if `swap` returns them unchanged.

        It swaps the checkpoints among the attributes; a view that holds others, such as in a mapping, overrides it.
        """
        beneath = {name: value for name, value in vars(self).items() if isinstance(value, Checkpoint)}
        exchanged = {name: new for name, value in beneath.items() if (new := swap(value)) is not value}
        if not exchanged:
            return self
        view = copy(self)
        vars(view).update(exchanged)
        return view

    @final
    def spec(self, name: str) -> TensorSpec:
        """The header entry of one tensor, following ties."""
        spec = self.specs.get(self.ties.get(name, name))
        if spec is None:
            raise CheckpointError(f"{self.label} has no tensor {name!r}. {suggestion(name, self.specs)}")
        return spec

    @final
    def read(self, name: str) -> NDArray[Any]:
        """Read one whole tensor, in the dtype and shape of its `spec`."""
        spec = self.spec(name)
        data = np.empty(spec.nbytes, np.uint8)
        self.read_into(spec.name, 0, spec.numel, data)
        return data.view(spec.dtype.numpy).reshape(spec.shape)

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
