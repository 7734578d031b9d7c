"""Entries of floating-point tensors as float32."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._api import DTYPES, Checkpoint, TensorSpec

Floats: TypeAlias = NDArray[np.float32]


def read_floats(source: Checkpoint, spec: TensorSpec, start: int, stop: int, out: Floats) -> None:
    """Read elements [start, stop) of a floating tensor as float32."""
    if spec.dtype == DTYPES["F32"]:
        source.read_into(spec.name, start, stop, out.view(np.uint8))
        return
    stored = np.empty((stop - start) * spec.dtype.itemsize, np.uint8)
    source.read_into(spec.name, start, stop, stored)
    if spec.dtype.name == "BF16":  # the upper half of a float32
        np.left_shift(stored.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        out[:] = stored.view(spec.dtype.numpy)
