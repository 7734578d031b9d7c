"""A finished measurement, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import checkpoint as checkpoints
from ..checkpoint import DTYPES, TensorSpec, layout
from ..errors import CheckpointError, Mismatch, OutputExists
from ..planning import MODEL_DIGEST, STATISTICS_KIND
from ..storage import sync_file, sync_folder, writing

_DATA, _EXAMPLES, _ROWS, _FACTS = "polyak.data", "polyak.examples", "polyak.rows", "polyak.facts"
_BY_DTYPE = {np.dtype("<f4"): DTYPES["F32"], np.dtype("<f8"): DTYPES["F64"]}


@dataclass(frozen=True)
class Measurement:
    """A statistic of a model on data.

    Attributes:
        kind: The name of the statistic, such as `fisher`.
        tensors: Means over the observations, by the names of the model's tensors, float32.
        rows: Number of observations in each mean: examples, or rows of inputs.
        examples: Number of observed examples.
        model: Digest of the measured tensors.
        data: Digest of the examples.
        facts: Settings of the measurement: estimator, likelihood, seed and the like.
        notes: Messages for the user, such as layers that were left out; not kept in the file.
    """

    kind: str
    tensors: Mapping[str, NDArray[np.floating[Any]]]
    rows: Mapping[str, int]
    examples: int
    model: str
    data: str
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write a safetensors file with the tensor names of the model; it appears whole or not at all.

        Raises:
            OutputExists: the file exists, and `force` is not set.
            OutputError: it cannot be written.
        """
        path = Path(path)
        refuse_to_overwrite(path, force=force)
        write(path, self.tensors, self._metadata())
        return path

    def _metadata(self) -> dict[str, str]:
        return {
            STATISTICS_KIND: self.kind, MODEL_DIGEST: self.model, _DATA: self.data, _EXAMPLES: str(self.examples),
            _ROWS: json.dumps(dict(self.rows), sort_keys=True), _FACTS: json.dumps(dict(self.facts), sort_keys=True),
        }  # fmt: skip


def load(path: str | Path) -> Measurement:
    """Read a saved measurement.

    Raises:
        CheckpointError: the file is not one.
    """
    with checkpoints.open(path) as file:
        try:
            metadata = file.metadata
            rows = cast("dict[str, int]", json.loads(metadata[_ROWS]))
            facts = cast("dict[str, str]", json.loads(metadata[_FACTS]))
            if set(rows) != set(file.specs):
                raise ValueError
            tensors = {name: file.read(name) for name in file.specs}
            return Measurement(
                metadata[STATISTICS_KIND],
                tensors,
                rows,
                int(metadata[_EXAMPLES]),
                metadata[MODEL_DIGEST],
                metadata[_DATA],
                facts,
            )
        except (KeyError, ValueError, TypeError, AttributeError):
            raise CheckpointError(
                f"{path} is no measurement: its metadata lacks what `polyak measure` writes. Measure again."
            ) from None


def merged(parts: Sequence[Measurement]) -> Measurement:
    """Combine measurements of parts of the data: means weighted by the number of observations.

    Raises:
        Mismatch: they are of different kinds or models, were measured differently, or hold the same data twice.
    """
    first = parts[0]
    for other in parts[1:]:
        for what in ("kind", "model", "facts"):
            if getattr(other, what) != getattr(first, what):
                raise Mismatch(
                    f"measurements of different {what} cannot be combined: {getattr(first, what)!r} and "
                    f"{getattr(other, what)!r}."
                )
        if other.tensors.keys() != first.tensors.keys():
            odd = sorted(other.tensors.keys() ^ first.tensors.keys())[0]
            raise Mismatch(f"measurements of different tensors cannot be combined: only one has {odd!r}.")
    if len({part.data for part in parts}) < len(parts):
        raise Mismatch("two of the measurements are of the same examples, which would count twice. Leave one out.")
    rows = {name: sum(part.rows[name] for part in parts) for name in first.rows}
    tensors = {name: _mean([p.tensors[name] for p in parts], [p.rows[name] for p in parts]) for name in first.tensors}
    examples = sum(part.examples for part in parts)
    return replace(first, tensors=tensors, rows=rows, examples=examples, data=_joined([part.data for part in parts]))


def _mean(tensors: Sequence[NDArray[Any]], rows: Sequence[int]) -> NDArray[np.float32]:
    total = sum(
        (n * tensor.astype(np.float64) for tensor, n in zip(tensors, rows, strict=True)), np.zeros(tensors[0].shape)
    )
    return (total / max(sum(rows), 1)).astype(np.float32)


def _joined(digests: Sequence[str]) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(",".join(sorted(digests)).encode())


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Refuse to overwrite a file.

    Raises:
        OutputExists: by a file, unless `force`; by a folder.
    """
    if path.is_dir():
        raise OutputExists(f"{path} is a folder; name a file, such as {path / 'fisher.safetensors'}.")
    if path.exists() and not force:
        raise OutputExists(f"{path} exists. Choose another path, or replace it with --force.")


def write(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file of float32 or float64; an existing file is replaced atomically.

    Raises:
        OutputError: it cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    head, offsets = layout([TensorSpec(n, _BY_DTYPE[a.dtype], a.shape) for n, a in arrays.items()], metadata)
    draft = path.with_name(f".{path.name}.draft")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(head)
            for name in sorted(arrays, key=lambda name: offsets[name]):
                file.write(arrays[name].tobytes())
            sync_file(file)
        draft.replace(path)
        sync_folder(path.parent)
