"""Digests of tensors, computed while they are written.

A tensor's bytes are split into leaves of 4 MiB, each leaf is hashed, and the digests of the leaves are hashed together:
the digest does not depend on chunks, shards or workers, and parts of a tensor can be hashed in parallel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import xxhash

LEAF_NBYTES = 4 * 2**20
ALGORITHMS = ("xxh3-128", "sha256")


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...
    def digest(self) -> bytes: ...


def new_hash(algorithm: str) -> _Hash:
    """A hash object of one of `ALGORITHMS`."""
    if algorithm == "sha256":
        import hashlib

        return hashlib.sha256()
    return xxhash.xxh3_128()


def of_small(data: Any, algorithm: str | None) -> bytes:
    """The digest of a tensor of at most one leaf; empty for an empty tensor, or without an algorithm."""
    if algorithm is None or not len(data):
        return b""
    if algorithm == "sha256":
        import hashlib

        return hashlib.sha256(data).digest()
    return xxhash.xxh3_128_digest(data)


class Leaves:
    """Digests of consecutive leaves of a byte stream that begins at a multiple of `LEAF_NBYTES`."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash, self._room = new_hash(algorithm), LEAF_NBYTES
        self._done: list[bytes] = []

    def update(self, data: Any) -> None:
        """Hash the next bytes: a one-dimensional array of uint8."""
        while len(data) >= self._room:
            self._hash.update(data[: self._room])
            data = data[self._room :]
            self._done.append(self._hash.digest())
            self._hash, self._room = new_hash(self._algorithm), LEAF_NBYTES
        if len(data):
            self._hash.update(data)
            self._room -= len(data)

    def digests(self) -> bytes:
        """The digests of the leaves, concatenated; the last leaf may be short."""
        rest = [self._hash.digest()] if self._room < LEAF_NBYTES else []
        return b"".join([*self._done, *rest])


def root(leaves: Iterable[bytes], algorithm: str) -> str:
    """The digest of a tensor from the digests of its leaves, in hexadecimal."""
    joined = b"".join(leaves)
    if algorithm == "sha256":
        import hashlib

        return hashlib.sha256(joined).hexdigest()
    return xxhash.xxh3_128_hexdigest(joined)


class Unhashed:
    """Replaces `Leaves` where no digests are computed."""

    def update(self, data: Any) -> None: ...

    def digests(self) -> bytes:
        """No bytes."""
        return b""


def model_digest(tensors: Mapping[str, str], algorithm: str) -> str:
    """The digest of a model from those of its tensors; the order of its file does not matter."""
    top = new_hash(algorithm)
    for name, digest in sorted(tensors.items()):
        top.update(f"{name}\0{digest}\n".encode())
    return top.digest().hex()
