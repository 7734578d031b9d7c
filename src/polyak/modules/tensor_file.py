"""Files of torch tensors in the safetensors format, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import DTYPES, SafetensorsFile, TensorSpec, layout
from ..storage import sync_file, sync_folder, writing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "uint64": "U64", "int64": "I64", "uint32": "U32", "int32": "I32", "uint16": "U16",
    "int16": "I16", "uint8": "U8", "int8": "I8", "bool": "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors into a file that appears whole or not at all, and replaces one that is there.

    One tensor is on the CPU at a time. A file that a killed process left unfinished is overwritten by the next.

    Raises:
        OutputError: no space, no permission, or another refusal of the system.
    """
    specs = [TensorSpec(name, DTYPES[_name(tensor.dtype)], tuple(tensor.shape)) for name, tensor in tensors.items()]
    head, offsets = layout(specs, metadata)
    draft = path.with_name(f".{path.name}.unfinished")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(head)
            for spec in specs:
                file.seek(offsets[spec.name])
                file.write(memoryview(_bytes(tensors[spec.name])))
            sync_file(file)
        draft.replace(path)
        sync_folder(path.parent)


def read_tensor(file: SafetensorsFile, name: str) -> Tensor:
    """Read one tensor, with the dtype that it has in the file."""
    import torch

    spec = file.spec(name)
    stored = np.empty(spec.nbytes, np.uint8)
    file.read_into(name, 0, spec.numel, stored)
    dtype = next(word for word, kind in _NAMES.items() if kind == spec.dtype.name)
    return torch.from_numpy(stored).view(getattr(torch, dtype)).reshape(spec.shape)


def _name(dtype: torch.dtype) -> str:
    return _NAMES[str(dtype).removeprefix("torch.")]


def _bytes(tensor: Tensor) -> Any:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
