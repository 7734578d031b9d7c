"""The type of arrays (NumPy, torch, CuPy or any other library of the array API standard), and what counts as small."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
SMALL_MATRIX = 128  # rows or columns up to which float64 is quick
