"""The digest of everything that a case writes, free of paths and of the version's number."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_ROOT = b"<root>"
_RECIPE_DIGEST = re.compile(rb'("recipe_digest": ")[0-9a-f]+')
REPORTS = ("polyak.json", "README.md")  # what a merge says of itself


def digests_of(folder: Path, root: Path, version: str) -> dict[str, str]:
    """From each file's path in `folder` to its SHA-256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _digest(path, root, version) for path in files}


def digests_of_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """From each tensor's name to the SHA-256 of dtype, shape and bytes."""
    found: dict[str, str] = {}
    for name, tensor in tensors.items():
        about = f"{tensor.dtype} {tensor.shape} ".encode()
        found[name] = hashlib.sha256(about + np.ascontiguousarray(tensor).tobytes()).hexdigest()
    return found


def _digest(path: Path, root: Path, version: str) -> str:
    data = path.read_bytes()
    if path.name in REPORTS:
        for said in ('"polyak": "{}"', "polyak {}"):
            data = data.replace(said.format(version).encode(), said.format("<version>").encode())
    if path.name == "polyak.json" and str(root) in json.loads(data).get("recipe", ""):
        data = _RECIPE_DIGEST.sub(rb"\1<digest>", data)  # of a recipe with absolute paths
    if (place := str(root).encode()) in data:
        data = _without(place, data) if path.suffix == ".safetensors" else data.replace(place, _ROOT)
    return hashlib.sha256(data).hexdigest()


def _without(place: bytes, data: bytes) -> bytes:
    """A safetensors file whose metadata names the folder: without its header's length and padding too."""
    stop = 8 + int.from_bytes(data[:8], "little")
    return data[8:stop].replace(place, _ROOT).rstrip() + data[stop:]


def together(files: Mapping[str, str]) -> str:
    """One digest of a case's files, except of what the merge says of itself."""
    lines = (f"{name} {digest}\n" for name, digest in sorted(files.items()) if Path(name).name not in REPORTS)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
