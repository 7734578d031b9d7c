"""A checkpoint held in memory: a mapping of names to NumPy arrays or torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ..errors import CheckpointError, UnsupportedFormat
from ._api import DTYPES, Bytes, Checkpoint, TensorSpec

_BY_NUMPY = {spec.numpy: spec for spec in DTYPES.values()}


class MemoryCheckpoint(Checkpoint):
    """A state dict. Tensors are not copied unless they are strided or on another device.

    Two names whose tensors are the same object, or the same view of the same memory, are tied.
    """

    def __init__(self, tensors: Mapping[str, Any], *, label: str = "in memory") -> None:
        self.label = label
        self._tensors = dict(tensors)  # while these live, no address is used twice
        self._bytes: dict[str, Bytes] = {}
        specs: dict[str, TensorSpec] = {}
        ties: dict[str, str] = {}
        holder: dict[object, str] = {}
        for name, tensor in self._tensors.items():
            _check_tensor(name, tensor, label)
            key = _memory_key(tensor)
            if key is not None and key in holder:
                ties[name] = holder[key]
                continue
            holder[key] = name
            array, dtype = _as_numpy(name, tensor, label)
            specs[name] = TensorSpec(name, DTYPES[dtype], tuple(array.shape))
            self._bytes[name] = array.reshape(-1).view(np.uint8)
        self.specs, self.ties = specs, ties

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        size = self.specs[name].dtype.itemsize
        out[:] = self._bytes[name][start * size : stop * size]


def _check_tensor(name: object, tensor: Any, label: str) -> None:
    if not isinstance(name, str):
        raise CheckpointError(f"{label}: tensors are named by strings; got {name!r:.80}.")
    if not isinstance(tensor, np.ndarray | np.generic) and not _is_torch(tensor):
        raise UnsupportedFormat(
            f"{label}: {name!r} is a {type(tensor).__name__}; expected a NumPy array or a torch tensor. "
            "Pass the state dict alone, without counters and optimizer state."
        )


def _is_torch(tensor: Any) -> bool:
    return hasattr(tensor, "detach") and hasattr(tensor, "data_ptr")


def _memory_key(tensor: Any) -> object | None:
    """Key of a tensor's memory, equal for equal views of the same memory; None for tensors that share none."""
    if _is_torch(tensor):
        if str(tensor.layout) != "torch.strided" or tensor.is_quantized or tensor.device.type == "meta":
            return None
        key = tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype), str(tensor.device)
        return (*key, tensor.is_neg()) if tensor.numel() else None
    if not isinstance(tensor, np.ndarray):
        return None
    array = cast("np.ndarray[Any, Any]", tensor)
    return (array.__array_interface__["data"][0], array.shape, array.strides, str(array.dtype)) if array.size else None


def _as_numpy(name: str, tensor: Any, label: str) -> tuple[np.ndarray[Any, Any], str]:
    if _is_torch(tensor):
        tensor = _torch_as_numpy(name, tensor, label)
    array = np.asarray(tensor)
    shape = array.shape  # ascontiguousarray turns a scalar into a vector
    dtype = _BY_NUMPY.get(array.dtype)
    if dtype is None:
        raise UnsupportedFormat(f"{label}: {name!r} has dtype {array.dtype}, which polyak cannot read.")
    return np.ascontiguousarray(array).reshape(shape), dtype.name


def _torch_as_numpy(name: str, tensor: Any, label: str) -> np.ndarray[Any, Any]:
    """Convert a tensor to NumPy; bfloat16 and float8, which NumPy lacks, by their bits and with ml_dtypes."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    try:
        tensor = tensor.detach().resolve_neg().cpu().contiguous()
        if dtype not in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            return tensor.numpy()
        import ml_dtypes
        import torch

        bits = tensor.view(torch.uint8 if dtype.startswith("float8") else torch.int16).numpy()
        return bits.view(getattr(ml_dtypes, dtype))
    except (TypeError, RuntimeError, NotImplementedError) as error:  # quantised, sparse, complex, on no device ...
        description = f"{dtype}, {str(tensor.layout).removeprefix('torch.')}, on {tensor.device}"
        raise UnsupportedFormat(f"{label}: {name!r} is a tensor that polyak cannot read ({description}).") from error
