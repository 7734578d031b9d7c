"""Sums of a first pass, as a kernel that the engine may run where the numbers are in the first-level cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SumCall:
    """Sums over the entries of a tensor that are calls of one kernel.

    Attributes:
        kernel: Called with `lanes` (terms, 128) float64, to which it adds, the deltas (k, n) float32, which it may
            overwrite, the index in the tensor of the first entry, and `args`. Entry i of the stack belongs to lane
            i % 128, so that sums do not depend on the number of entries per call.
        terms: Number of sums.
        args: Arrays, numbers and bools, the same for all entries of a tensor.
    """

    kernel: Any
    terms: int
    args: tuple[Any, ...] = ()
