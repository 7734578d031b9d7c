"""The one loop of a LoRA view; imported, and compiled, at the first read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..native import kernel, scratch

_TILE = 4096  # elements of a row whose sums stay in the first-level cache

Floats = NDArray[np.float32]


@kernel
def add_product(out: Floats, start: int, left: Floats, right: Floats, scale: np.float32) -> None:
    """out += scale * (left @ right), for the row-major elements of the product from `start` on.

    Every element is summed over the rank in ascending order and scaled once, so that its bits do not
    depend on the range in which it is computed.
    """
    rank, columns = right.shape
    sums = scratch(_TILE, np.float32)
    done = 0
    while done < out.size:
        row, column = divmod(start + done, columns)
        count = min(_TILE, columns - column, out.size - done)
        sums[:count] = 0.0
        for r in range(rank):
            factor = left[row, r]
            for j in range(count):
                sums[j] += factor * right[r, column + j]
        for j in range(count):
            out[done + j] += scale * sums[j]
        done += count
