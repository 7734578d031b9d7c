"""What a kernel is to its callers: a function of arrays and numbers, in machine code from its first call on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

from . import _store

F = TypeVar("F", bound=Callable[..., Any])

C_CONTIGUOUS, ALIGNED = 0x001, 0x100  # bits of `ndarray.flags.num`
_LAYOUT = C_CONTIGUOUS | ALIGNED
_lock = threading.RLock()
_say: list[Callable[[str], None]] = []


class Source:
    """A function that kernels may call: `code` is what is compiled."""

    def __init__(self, code: FunctionType, *, inline: bool) -> None:
        self.code, self.inline = code, inline
        self.__doc__, self.__name__, self.__module__ = code.__doc__, code.__name__, code.__module__

    def __call__(self, *args: Any) -> Any:
        return self.code(*args)


class Kernel(Source):
    """A compiled function. It is compiled for each combination of types that it is called with.

    Arguments are arrays, numbers and bools; results are nothing, a number, a bool, or a tuple of
    whole numbers. Python's lock is released while it runs.
    """

    def __init__(self, code: FunctionType) -> None:
        super().__init__(code, inline=False)
        self._variants: dict[tuple[Any, ...], Callable[[list[Any]], Any]] = {}

    def __call__(self, *args: Any) -> Any:
        # Runs several times a tile, and a model may have a hundred thousand tiny tensors: one plain loop.
        kinds: list[Any] = []
        passed: list[Any] = []
        for arg in args:
            if isinstance(arg, np.ndarray):
                kinds.append((arg.dtype, arg.ndim, arg.flags.num & _LAYOUT))
                passed.append(id(arg))
            else:
                kinds.append(type(arg))
                passed.append(arg)
        key = tuple(kinds)
        return (self._variants.get(key) or self._variant(key))(passed)

    def _variant(self, key: tuple[Any, ...]) -> Callable[[list[Any]], Any]:
        with _lock:
            if key not in self._variants:
                self._variants[key] = self._load(key)
            return self._variants[key]

    def _load(self, key: tuple[Any, ...]) -> Callable[[list[Any]], Any]:
        from ._load import callable_of, refuse_strangers

        refuse_strangers(key, self.__name__)
        place = _store.place_of(self, key)
        stored = _store.read(place)
        if stored is None:
            for say in _say[:1]:
                say("compiling kernels for this machine; this happens once ...")
                _say.clear()
            from ._build import build

            stored = build(self, key)
            _store.write(place, stored)
        return callable_of(stored, key, self.__name__)


def kernel(fn: F) -> F:
    """Compile on first call, into a cache (beside the source, else in the user's cache folder).

    No fastmath: sums keep their order, so results do not depend on the compiler's mood. No allocation: what a
    kernel needs beside its arguments is `scratch`.
    """
    return cast("F", Kernel(cast("FunctionType", fn)))


def inlined(fn: F) -> F:
    """A function for use inside kernels."""
    return cast("F", Source(cast("FunctionType", fn), inline=True))


def filled(template: Callable[..., Any], **named: Any) -> Any:
    """A kernel from a template: a function that calls names of its module that stand for kernels yet to be named."""
    code = cast("FunctionType", template)
    made = FunctionType(code.__code__, code.__globals__ | named, code.__name__, code.__defaults__)
    made.__module__, made.__doc__ = code.__module__, code.__doc__
    return Kernel(made)


def scratch(n: int, dtype: Any) -> Any:
    """An array of n entries on the stack of the kernel that asks for it, not cleared; n is a constant."""
    return np.empty(n, dtype)


def stream(source: Any, out: Any, begin: int) -> None:
    """Copy a vector of float32 to the entries of another from `begin` on, past the caches where the machine can.

    That spares a read of what is overwritten. Other threads see it from `settle` on.
    """
    out[begin : begin + len(source)] = source


def settle() -> None:
    """Wait until everything that was streamed can be seen by all."""


def in_rows(flat: Any, rows: int, n: int) -> Any:
    """The first entries of a C-contiguous vector as a C-contiguous (rows, n); there must be as many."""
    return flat[: rows * n].reshape(rows, n)


@contextmanager
def saying_when_compiling(say: Callable[[str], None]) -> Generator[None]:
    """Have it said, once, if a kernel is not in the cache and must be compiled."""
    _say[:] = [say]
    try:
        yield
    finally:
        _say.clear()
