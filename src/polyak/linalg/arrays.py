"""The type of arrays: NumPy, torch, CuPy or any other library of the array API standard."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
