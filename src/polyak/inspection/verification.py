"""Check a merged model, and what it was made of, against its provenance."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from .. import checkpoint as checkpoints
from .. import recipe as recipes
from ..checkpoint import Checkpoint, SafetensorsFile, open_factors, read_json
from ..engine import PROVENANCE, Readers, device_of
from ..errors import CheckpointError, PolyakError
from ..linalg import one_thread
from ..planning import open_source
from ..storage import ALGORITHMS, LEAF_NBYTES, Leaves, root


@dataclass(frozen=True)
class Verification:
    """Result of a verification.

    Attributes:
        tensors: Number of tensors of the result that were read.
        differing: Differences from the provenance, in words; empty if there are none.
        inputs: For each model, `unchanged`, `not found`, or what differs.
    """

    tensors: int
    differing: tuple[str, ...]
    inputs: Mapping[str, str]


def verify(folder: str | Path, *, inputs: bool = False) -> Verification:
    """Recompute the digests of a merged model.

    Args:
        folder: The merged model.
        inputs: Also read the models that it was made of again, where they still lie.

    Raises:
        CheckpointError: there is no provenance, or it is damaged.
    """
    folder = Path(folder)
    stated = _provenance(folder)
    algorithm = stated["digest"]
    digests = dict(tensor_digests(folder, algorithm))
    expected: dict[str, str] = stated["result"]["tensors"]
    differing = [f"{name} is missing" for name in expected if name not in digests]
    differing += [f"{name} was added" for name in digests if name not in expected]
    differing += [f"{name} was changed" for name in expected if digests.get(name, expected[name]) != expected[name]]
    sources = {**stated["models"], **stated.get("statistics", {})}
    device = _device(stated)
    checked = {name: _check_input(source, algorithm, device) for name, source in sources.items()} if inputs else {}
    return Verification(len(digests), tuple(differing), checked)


def _provenance(folder: Path) -> dict[str, Any]:
    if not (folder / PROVENANCE).exists():
        raise CheckpointError(
            f"{folder} has no {PROVENANCE}: it was not merged by polyak, or its provenance was removed."
        )
    stated = read_json(folder / PROVENANCE)
    match stated:
        case {"digest": str(algorithm), "result": {"tensors": dict()}, "models": dict()} if algorithm in ALGORITHMS:
            return stated
        case _:
            raise CheckpointError(f"{folder / PROVENANCE} is damaged: expected digest, models and result.tensors.")


def _device(stated: dict[str, Any]) -> str:
    """Devices of nested merges, which must be the same when they are computed again."""
    match stated.get("device"):
        case {"name": str(name)}:
            return name
        case _:
            return "cpu"


def tensor_digests(folder: Path, algorithm: str) -> Iterator[tuple[str, str]]:
    """The digest of every tensor in the folder, heads and masks under `heads/<model>.safetensors:<name>`."""
    with _opened(folder) as model:
        for name in model.specs:
            yield name, digest_of(model, name, algorithm)
    for path in sorted([*folder.glob("heads/*.safetensors"), *folder.glob("masks/*.safetensors")]):
        with SafetensorsFile(path) as file:  # masks as they are stored, not the model that they cut out
            for name in file.specs:
                yield f"{path.parent.name}/{path.name}:{name}", digest_of(file, name, algorithm)


def digest_of(checkpoint: Checkpoint, name: str, algorithm: str) -> str:
    """The digest of one tensor, read from its checkpoint."""
    spec = checkpoint.spec(name)
    leaves = Leaves(algorithm)
    step = LEAF_NBYTES // spec.dtype.itemsize
    buffer = np.empty(min(LEAF_NBYTES, max(spec.nbytes, 1)), np.uint8)
    for start in range(0, spec.numel, step):
        stop = min(start + step, spec.numel)
        part = buffer[: (stop - start) * spec.dtype.itemsize]
        checkpoint.read_into(spec.name, start, stop, part)
        leaves.update(part)
    return root([leaves.digests()], algorithm)


def _check_input(model: object, algorithm: str, device: str) -> str:
    match model:
        case {"path": str(path), "tensors": dict(tensors)}:
            stated = cast("dict[str, str]", tensors)
        case _:
            return "not described"
    source = cast("dict[str, Any]", model).get("source")
    if source is None and not os.path.exists(path):  # noqa: PTH110  Path.exists raises where a name is too long
        return "not found"
    try:
        with one_thread(), _opened(Path(path)) if source is None else _reread(source, device) as opened:
            changed = [name for name, digest in stated.items() if digest_of(opened, name, algorithm) != digest]
    except PolyakError as error:
        return str(error)
    return "unchanged" if not changed else f"changed: {', '.join(changed[:3])}" + (" ..." if len(changed) > 3 else "")


def _opened(path: Path) -> Checkpoint:
    """A model, or the factors of an adapter."""
    if path.is_dir() and (path / "adapter_config.json").exists():
        return open_factors(path)
    return checkpoints.open(path)


def _reread(source: object, device: str) -> Checkpoint:
    """A model that has adapters on it, is a nested merge, or is looked at in another way."""
    entry = {"name": "model", **cast("dict[str, Any]", source)} if isinstance(source, dict) else source
    recipe = recipes.read({"models": [entry], "method": "linear"}, Path("/"))
    return Readers(1, device_of(device))(open_source(recipe.models[0].source, recipe.folder))
