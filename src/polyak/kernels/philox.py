"""Random numbers by counter: entry i of a tensor draws the same number whatever was drawn before it.

Philox4x32-10 (Salmon et al., 2011. Parallel random numbers: as easy as 1, 2, 3. doi:10.1145/2063384.2063405).
The key is 64 bits of a digest of (seed, model, tensor); the counter is the entry's index divided by four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ._compile import inlined, kernel

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)


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
def words(counter: int, key: Any, out: Any) -> None:
    """Four random 32-bit words for each of n consecutive counters, all counters at once: vector code.

    Args:
        counter: The first counter.
        key: (2,) uint32.
        out: (4, n) uint32, written.
    """
    c0, c1, c2, c3 = out[0], out[1], out[2], out[3]
    for i in range(c0.size):
        c0[i] = np.uint32(counter + i)
        c1[i] = np.uint32((counter + i) >> 32)
        c2[i] = np.uint32(0)
        c3[i] = np.uint32(0)
    key0, key1 = key[0], key[1]
    for _ in range(_ROUNDS):
        for i in range(c0.size):
            p0, p1 = np.uint64(_M0 * np.uint64(c0[i])), np.uint64(_M1 * np.uint64(c2[i]))
            c0[i] = np.uint32(np.uint32(np.uint32(p1 >> np.uint64(32)) ^ c1[i]) ^ key0)
            c2[i] = np.uint32(np.uint32(np.uint32(p0 >> np.uint64(32)) ^ c3[i]) ^ key1)
            c1[i], c3[i] = np.uint32(p1), np.uint32(p0)
        key0, key1 = np.uint32(key0 + _W0), np.uint32(key1 + _W1)


_LANES = 256  # counters at once: their words stay in the first-level cache


@kernel
def uniform(out: Any, key: Any, start: int) -> None:
    """Numbers in [0, 1) for entries [start, start + n).

    Args:
        out: (n,) float32, written.
        key: (2,) uint32.
        start: Index of the first entry.
    """
    drawn = np.empty((4, _LANES), np.uint32)
    skip = start % 4
    for begin in range(-skip, out.size, 4 * _LANES):
        words((start + begin) // 4, key, drawn)
        if begin >= 0 and begin + 4 * _LANES <= out.size:
            part = out[begin : begin + 4 * _LANES]
            for word in range(4):
                row = drawn[word]
                for i in range(_LANES):
                    part[4 * i + word] = _unit(row[i])
        else:
            for i in range(max(begin, 0), min(begin + 4 * _LANES, out.size)):
                out[i] = _unit(drawn[(i - begin) % 4, (i - begin) // 4])
