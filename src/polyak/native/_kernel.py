"""Kernels as their callers see them: functions of arrays and numbers that run as machine code."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import FunctionType
from typing import Any, cast

import numpy as np

from ..errors import KernelUnavailable
from . import _library, _store
from ._load import HEADER_NBYTES, address_of, callable_of, refuse_other_types
from ._signature import LAYOUT, Key, declared_keys, spelled
from ._source import F, Source

Call = Callable[[list[Any]], Any]

_lock = threading.RLock()
_say: list[Callable[[str], None]] = []


class Kernel(Source):
    """A compiled function, with one variant per combination of argument types.

    Arguments are arrays, numbers and bools; results are nothing, a number, a bool, or a tuple of numbers. Python's
    lock is released while it runs.
    """

    def __init__(self, code: FunctionType, parts: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, inline=False, parts=parts)
        self._variants: dict[Key, Call] = {}

    def __call__(self, *args: Any) -> Any:
        # Runs several times per tile, and a model may have a hundred thousand tiny tensors: one plain loop.
        kinds: list[Any] = []
        passed: list[Any] = []
        for arg in args:
            if isinstance(arg, np.ndarray):
                kinds.append((arg.dtype, arg.ndim, arg.flags.num & LAYOUT))
                passed.append(id(arg) + HEADER_NBYTES)
            else:
                kinds.append(type(arg))
                passed.append(arg)
        key = tuple(kinds)
        if (call := self._variants.get(key)) is None and (call := self._variant(key)) is None:
            return self._on_copies(key, args)
        return call(passed)

    @property
    def keys(self) -> list[Key]:
        """The types of arguments that the annotations declare; none where a parameter has no such annotation."""
        return declared_keys(self.code)

    @property
    def is_available(self) -> bool:
        """True if this installation can run the kernel: it is in the library, or there is a compiler."""
        return has_compiler() or any(_library.find(self.identity, key) for key in self.keys)

    def _variant(self, key: Key) -> Call | None:
        with _lock:
            if key not in self._variants:
                if (call := self._load(key)) is None:
                    return None
                self._variants[key] = call
            return self._variants[key]

    def _load(self, key: Key) -> Call | None:
        """From the library, else from the cache, else compiled; None if that needs a compiler that is not there."""
        refuse_other_types(key, self.__name__)
        if (prebuilt := _library.find(self.identity, key)) is not None:
            return callable_of(prebuilt.address, prebuilt.result, key, self.__name__)
        if not has_compiler():
            return None
        compiled = self._compiled(key)
        return callable_of(address_of(compiled.code), compiled.result, key, self.__name__)

    def _compiled(self, key: Key) -> _store.Compiled:
        path = _store.path_of(self, key)
        stored = _store.read(path)
        if stored is None:
            for say in _say[:1]:
                say("compiling kernels for this machine; this happens once ...")
                _say.clear()
            stored = _compiler()(self, key)
            _store.write(path, stored)
        return stored

    def _on_copies(self, key: Key, args: tuple[Any, ...]) -> Any:
        """Without a compiler: run the variant for plain arrays on copies, and copy back what it wrote.

        Raises:
            KernelUnavailable: There is no such variant either.
        """
        plain = tuple((*kind[:2], LAYOUT) if isinstance(kind, tuple) else kind for kind in key)
        call = self._variant(plain) if plain != key else None
        if call is None:
            raise KernelUnavailable(
                f"kernel {self.identity} was not built for ({spelled(key)}), and there is no compiler. "
                'Install it: pip install "polyak[compile]"'
            )
        copies = [np.require(arg, requirements=["C", "A"]) if isinstance(arg, np.ndarray) else arg for arg in args]
        result = call([id(copy) + HEADER_NBYTES if isinstance(copy, np.ndarray) else copy for copy in copies])
        for arg, copy in zip(args, copies, strict=True):
            if copy is not arg and arg.flags.writeable:
                arg[...] = copy
        return result


def kernel(fn: F) -> F:
    """Make a function a kernel. It is in the wheel if all its parameters have types such as `F32Rows` or `int`.

    Otherwise it is compiled at its first call, into a cache (next to the source, else in the user's cache folder).
    No fast-math: sums keep their order, so results do not depend on the compiler's version. No allocation: temporary
    arrays are `scratch`.
    """
    return cast("F", Kernel(cast("FunctionType", fn)))


def filled(template: Callable[..., Any], **parts: Any) -> Any:
    """Make a kernel from a template: a function that calls names of its module, which are given here."""
    code = cast("FunctionType", template)
    made = FunctionType(code.__code__, code.__globals__ | parts, code.__name__, code.__defaults__)
    made.__module__, made.__doc__ = code.__module__, code.__doc__
    return Kernel(made, parts)


def _compiler() -> Callable[[Source, Key], _store.Compiled]:
    """Import the compiler, which rejects some versions of NumPy and can be switched off by the environment."""
    try:
        from numba import config

        from ._build import build
    except ImportError as error:
        raise KernelUnavailable(f"Numba cannot be imported: {error}. Install versions that fit together.") from error
    if cast("Any", config).DISABLE_JIT:
        raise KernelUnavailable("NUMBA_DISABLE_JIT turns off the compiler that kernels need. Unset it.")
    return build


@cache
def has_compiler() -> bool:
    """True if Numba is installed."""
    return find_spec("numba") is not None


@cache
def is_available(fn: Callable[..., Any]) -> bool:
    """True if this installation can run a function: its kernels are in the library, or there is a compiler.

    Warns if it cannot. Looked at are the function, if it is a kernel, and the kernels of its module that it names.
    """
    names = fn.__code__.co_names if isinstance(fn, FunctionType) else ()
    kernels = [fn] if isinstance(fn, Kernel) else [fn.__globals__.get(name) for name in names]
    missing = [k.identity for k in kernels if isinstance(k, Kernel) and not k.is_available]
    if missing:
        warnings.warn(
            f"{', '.join(missing)}: not compiled, since Numba is not installed; definitions run in their place, "
            'more slowly. Remedy: pip install "polyak[compile]"',
            RuntimeWarning,
            stacklevel=2,
        )
    return not missing


@contextmanager
def saying_when_compiling(say: Callable[[str], None]) -> Generator[None]:
    """Call `say` once if a kernel must be compiled."""
    _say[:] = [say]
    try:
        yield
    finally:
        _say.clear()
