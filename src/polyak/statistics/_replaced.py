"""A model with some of its tensors replaced, as a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Bytes, Checkpoint, TensorSpec
from ..errors import Mismatch, suggestion


class Replaced(Checkpoint):
    """A view of a checkpoint with other values for some tensors, in their shapes and dtypes.

    Raises:
        Mismatch: it has no such tensor, or of another shape.
    """

    def __init__(self, inner: Checkpoint, tensors: Mapping[str, Any]) -> None:
        self.inner, self.label, self.folder = inner, inner.label, inner.folder
        self.specs, self.metadata, self.ties, self.stamps = inner.specs, inner.metadata, inner.ties, inner.stamps
        self._bytes = {name: self._checked(name, np.asarray(tensor)) for name, tensor in tensors.items()}

    def _checked(self, name: str, tensor: np.ndarray[Any, Any]) -> Bytes:
        spec: TensorSpec | None = self.specs.get(name)
        if spec is None or spec.shape != tensor.shape:
            raise Mismatch(
                f"{self.label} has no tensor {name!r} of shape {list(tensor.shape)}. {suggestion(name, self.specs)}"
            )
        return np.ascontiguousarray(tensor.astype(spec.dtype.numpy)).reshape(-1).view(np.uint8)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        if name in self._bytes:
            size = self.specs[name].dtype.itemsize
            out[:] = self._bytes[name][start * size : stop * size]
        else:
            assert self.inner is not None
            self.inner.read_into(name, start, stop, out)


def write_with(model: Checkpoint, tensors: Mapping[str, Any], out: Path, *, note: str, force: bool = False) -> None:
    """Write a copy of a model with other values for some tensors; config and tokenizer are copied.

    Raises:
        Mismatch: a tensor does not fit.
        OutputError: the folder exists or cannot be written.
    """
    from ..engine import run
    from ..planning import plan
    from ..recipe import Model, Recipe, Source

    named = Model("model", Source(path=model.label))
    recipe = Recipe("passthrough", (named,), buffers="first", provenance={"changed": note, "tensors": sorted(tensors)})
    run(plan(recipe, {"model": Replaced(model, tensors)}), out, force=force)
