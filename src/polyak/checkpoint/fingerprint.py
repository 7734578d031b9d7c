"""A digest of the values of tensors, from samples of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ._api import Checkpoint, TensorSpec

_BLOCKS, _ENTRIES = 4, 256  # samples of a tensor: 4 blocks of 256 entries, evenly spaced


def fingerprint(checkpoint: Checkpoint, tensors: Iterable[tuple[str, TensorSpec]]) -> str:
    """XXH3-128 (hexadecimal) of names, shapes and sampled values; about a kilobyte is read per tensor.

    It does not depend on file formats, shards, or the dtype in which equal values are stored. Two fine-tunes of one
    model have different fingerprints unless they agree in every sample.

    Args:
        checkpoint: The checkpoint that the entries belong to.
        tensors: For each tensor, the name to hash, and its entry in the checkpoint.

    Raises:
        CheckpointError: a file is now shorter than its header states.
    """
    import xxhash

    digest = xxhash.xxh3_128()
    for name, spec in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name}\0{list(spec.shape)}\n".encode())
        for start in _starts(spec.numel):
            digest.update(_values(checkpoint, spec, start, min(start + _ENTRIES, spec.numel)))
    return digest.hexdigest()


def _starts(numel: int) -> Iterable[int]:
    if numel <= _BLOCKS * _ENTRIES:
        return range(0, numel, _ENTRIES)
    return (i * (numel - _ENTRIES) // (_BLOCKS - 1) for i in range(_BLOCKS))


def _values(checkpoint: Checkpoint, spec: TensorSpec, start: int, stop: int) -> bytes:
    raw = np.empty((stop - start) * spec.dtype.itemsize, np.uint8)
    checkpoint.read_into(spec.name, start, stop, raw)
    with np.errstate(all="ignore"):
        return raw.view(spec.dtype.numpy).astype("<f4").tobytes()
