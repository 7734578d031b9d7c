"""The product of low-rank factors, added to a range of entries."""

from __future__ import annotations

import numpy as np

from ..native import F32, F32Rows, kernel, scratch

_TILE = 4096  # elements of a row whose sums stay in the first-level cache


@kernel
def add_product(out: F32, start: int, left: F32Rows, right: F32Rows, scale: np.float32) -> None:
    """out += scale * (left @ right), for the row-major elements of the product that begin at `start`.

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
