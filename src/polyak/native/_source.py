"""Building blocks of kernels: functions that they may call, and five with a special meaning inside them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cached_property
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


class Source:
    """A function that kernels may call.

    Attributes:
        code: The function that is compiled.
        inline: True if it becomes part of its callers.
        parts: The values of a template's names; empty for other functions.
    """

    def __init__(self, code: FunctionType, *, inline: bool, parts: Mapping[str, Any] | None = None) -> None:
        self.code, self.inline, self.parts = code, inline, dict(parts or {})
        self.__doc__, self.__name__, self.__module__ = code.__doc__, code.__name__, code.__module__

    def __call__(self, *args: Any) -> Any:
        return self.code(*args)

    @cached_property
    def identity(self) -> str:
        """The name of the function with its module and parts: the same on every machine."""
        parts = [f"{name}={getattr(part, 'identity', part)!s}" for name, part in sorted(self.parts.items())]
        return f"{self.__module__}.{self.__name__}" + (f"[{', '.join(parts)}]" if parts else "")


def inlined(fn: F) -> F:
    """Make a function one that kernels may call and that becomes part of them."""
    return cast("F", Source(cast("FunctionType", fn), inline=True))


def scratch(n: int, dtype: Any) -> Any:
    """Return an array of n entries on the stack of the kernel that calls this, not cleared; n is a constant."""
    return np.empty(n, dtype)


def stream(source: Any, out: Any, begin: int) -> None:
    """Copy a float32 vector to the entries of another from `begin` on, past the caches where the machine can.

    That spares a read of what is overwritten. Other threads see it from `settle` on.
    """
    out[begin : begin + len(source)] = source


def settle() -> None:
    """Wait until everything that was streamed is visible to all threads."""


def at_address(address: Any, n: Any) -> Any:
    """View the n float32 numbers at an address in memory, which the caller keeps alive."""
    return np.ctypeslib.as_array((ctypes.c_float * int(n)).from_address(int(address)))


def in_rows(flat: Any, rows: int, n: int) -> Any:
    """View the first entries of a C-contiguous vector as a C-contiguous (rows, n)."""
    return flat[: rows * n].reshape(rows, n)
