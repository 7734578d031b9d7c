"""Counter-based random numbers: entry i of a tensor draws the same number whatever was drawn before it.

Philox4x32-10 (Salmon et al., 2011. Parallel random numbers: as easy as 1, 2, 3. doi:10.1145/2063384.2063405).
The key is 64 bits of a digest of (seed, model, tensor); the counter is the entry's index divided by four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..native import F32, U32, U32Rows, inlined, kernel, scratch

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)  # words are kept in 64 bits; the upper half of products and sums is masked


@dataclass(frozen=True)
class Stream:
    """The random numbers of some models for entries [start, ...) of one tensor.

    Attributes:
        keys: (k, 2) uint32.
        start: Index of the first entry.
    """

    keys: NDArray[np.uint32]
    start: int

    def numbers(self, n: int) -> NDArray[np.float32]:
        """The next `n` numbers of each model, in [0, 1): (k, n)."""
        out = np.empty((len(self.keys), n), np.float32)
        for row, key in zip(out, self.keys, strict=True):
            uniform(row, key, self.start)
        return out


def stream(seed: int, models: tuple[str, ...], tensor: str, start: int = 0) -> Stream:
    """The random numbers that belong to a seed, the models' names and a tensor's name."""
    digests = [xxhash.xxh3_64_intdigest(f"{seed}\0{model}\0{tensor}".encode()) for model in models]
    return Stream(np.array([[d & 0xFFFFFFFF, d >> 32] for d in digests], np.uint32), start)


@inlined
def _unit(word: Any) -> Any:
    """The upper 24 bits as a float32 in [0, 1): exact."""
    return np.float32(np.uint32(word >> np.uint32(8))) * np.float32(2.0**-24)


@kernel
def words(counter: int, key: U32, out: U32Rows) -> None:
    """Four random 32-bit words for each of n consecutive counters, all counters at once: vector code.

    Args:
        counter: The first counter.
        key: (2,) uint32.
        out: (4, n) uint32, written.
    """
    _words(counter, key, out[0], out[1], out[2], out[3])


@kernel
def _words(counter: int, key: Any, c0: Any, c1: Any, c2: Any, c3: Any) -> None:
    for i in range(c0.size):
        x0, x2 = np.uint64(counter + i), np.uint64(0)
        x1, x3 = np.uint64(x0 >> np.uint64(32)), np.uint64(0)
        key0, key1 = np.uint64(key[0]), np.uint64(key[1])
        for _ in range(_ROUNDS):
            p0, p1 = np.uint64(_M0 * np.uint64(x0 & _LOW)), np.uint64(_M1 * np.uint64(x2 & _LOW))
            x0 = np.uint64(np.uint64(np.uint64(p1 >> np.uint64(32)) ^ x1) ^ key0)
            x2 = np.uint64(np.uint64(np.uint64(p0 >> np.uint64(32)) ^ x3) ^ key1)
            x1, x3 = p1, p0
            key0, key1 = np.uint64(key0 + _W0), np.uint64(key1 + _W1)
        c0[i], c1[i], c2[i], c3[i] = np.uint32(x0), np.uint32(x1), np.uint32(x2), np.uint32(x3)


_LANES = 256  # counters at once: their words stay in the first-level cache
TOGETHER = 4 * _LANES


@kernel
def uniform(out: F32, key: U32, start: int) -> None:
    """Numbers in [0, 1) for entries [start, start + n).

    Args:
        out: (n,) float32, written.
        key: (2,) uint32.
        start: Index of the first entry.
    """
    w0, w1 = scratch(_LANES, np.uint32), scratch(_LANES, np.uint32)
    w2, w3 = scratch(_LANES, np.uint32), scratch(_LANES, np.uint32)
    units = scratch(TOGETHER, np.float32)
    for begin in range(-(start % 4), out.size, 4 * _LANES):
        lanes = min((out.size - begin + 3) // 4, _LANES)
        _words((start + begin) // 4, key, w0[:lanes], w1[:lanes], w2[:lanes], w3[:lanes])
        for i in range(lanes):
            units[4 * i] = _unit(w0[i])
            units[4 * i + 1] = _unit(w1[i])
            units[4 * i + 2] = _unit(w2[i])
            units[4 * i + 3] = _unit(w3[i])
        first = max(begin, 0)
        part = out[first : begin + 4 * _LANES]
        new = units[first - begin :]
        for i in range(part.size):
            part[i] = new[i]
