"""The folder of an adapter, as PEFT loads it: factors, configuration and provenance."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..checkpoint import DType, SafetensorsFile, TensorSpec, layout
from ..errors import NotFinite
from ..inspection import digest_of
from ..storage import Draft, as_json, sync_file, write_text, writing
from .low_rank import Factors

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_CHUNK = 8 * 2**20


class Spool:
    """Collects tensors in temporary files, since the header of the output depends on the ranks of all of them.

    Args:
        draft: Folder of the temporary files.
        dtype: Dtype of the stored numbers.
    """

    def __init__(self, draft: Draft, dtype: DType) -> None:
        self._draft, self.dtype = draft, dtype
        self._places: dict[str, tuple[TensorSpec, int]] = {}
        self._end, self._lock = 0, threading.Lock()
        self._path = draft.home / "spool"
        with writing(draft.out):
            self._file = self._path.open("w+b")

    def put(self, name: str, values: Any) -> None:
        """Add a tensor; thread-safe."""
        with np.errstate(over="ignore"):
            data: Any = np.ascontiguousarray(values).astype(self.dtype.numpy)
        if not np.isfinite(data.astype(np.float64)).all():
            raise NotFinite(
                f"the merged {name!r} holds numbers that {self.dtype} cannot hold. Write a wider `dtype:`, or --dtype."
            )
        spec = TensorSpec(name, self.dtype, data.shape)
        with self._lock, writing(self._draft.out):
            self._places[name] = spec, self._end
            self._file.write(data.tobytes())
            self._end += spec.nbytes

    def finish(self, algorithm: str) -> dict[str, str]:
        """Write the tensors' file; return their digests."""
        specs = [spec for spec, _ in self._places.values()]
        head, offsets = layout(specs, {"format": "pt"})
        path = self._draft.model / WEIGHTS
        with writing(self._draft.out), path.open("wb") as file:
            file.write(head)
            for spec, start in self._places.values():
                file.seek(offsets[spec.name])
                self._copy(start, spec.nbytes, file)
            sync_file(file)
        self.close()
        self._path.unlink()
        with SafetensorsFile(path) as written:
            return {spec.name: digest_of(written, spec.name, algorithm) for spec in specs}

    def _copy(self, start: int, nbytes: int, file: Any) -> None:
        self._file.seek(start)
        while nbytes:
            data = self._file.read(min(nbytes, _CHUNK))
            file.write(data)
            nbytes -= len(data)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def nbytes(self) -> int:
        return self._end


def put_factors(
    spool: Spool, module: str, factors: Factors, a: Sequence[int], b: Sequence[int], embedding: bool
) -> None:
    """Store a module's factors under PEFT's names.

    Args:
        spool: Destination.
        module: Its name.
        factors: B and A, as matrices.
        a: The shape of an A of another rank.
        b: The shape of a B of another rank.
        embedding: True for an embedding.
    """
    at = f"base_model.model.{module}.lora_"
    names = (f"{at}embedding_A", f"{at}embedding_B") if embedding else (f"{at}A.weight", f"{at}B.weight")
    spool.put(names[0], factors.right.reshape(factors.rank, *a[1:]))
    spool.put(names[1], factors.left.reshape(b[0], factors.rank, *b[2:]))


def write_texts(draft: Draft, texts: Mapping[str, str | Mapping[str, Any]]) -> None:
    """Write small files: text as it is, mappings as JSON."""
    with writing(draft.out):
        for name, content in texts.items():
            write_text(draft.model / name, content if isinstance(content, str) else as_json(content))
