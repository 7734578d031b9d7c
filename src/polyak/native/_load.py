"""Load compiled kernels and call them: neither needs Numba, nor LLVM as a rule."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ._link import linked
from ._store import SYMBOL, Compiled

_SCALARS: dict[type, Any] = {
    bool: ctypes.c_bool,
    int: ctypes.c_int64,
    float: ctypes.c_double,
    np.bool_: ctypes.c_bool,
    np.uint8: ctypes.c_uint8,
    np.int32: ctypes.c_int32,
    np.uint32: ctypes.c_uint32,
    np.int64: ctypes.c_int64,
    np.uint64: ctypes.c_uint64,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}
_RESULTS = {"q": ctypes.c_int64, "d": ctypes.c_double, "?": ctypes.c_bool}


def refuse_strangers(key: tuple[Any, ...], name: str) -> None:
    """Refuse arguments that are neither arrays nor numbers.

    Raises:
        TypeError: there is one.
    """
    for kind in key:
        if not isinstance(kind, tuple) and kind not in _SCALARS:
            raise TypeError(f"kernel {name} takes arrays, numbers and bools; got {kind.__name__}.")


def callable_of(compiled: Compiled, key: tuple[Any, ...], name: str) -> Callable[[list[Any]], Any]:
    """A function that takes addresses of arrays, and numbers, in a list."""
    passed = [ctypes.c_void_p if isinstance(kind, tuple) else _SCALARS[kind] for kind in key]
    convention = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *passed)
    native = convention(_address(compiled.code))

    def check(status: int) -> None:
        if status:
            raise RuntimeError(f"kernel {name} failed with status {status}.")

    is_tuple = compiled.result.startswith("-")
    kinds = compiled.result.removeprefix("-")
    nothing, failure = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    if not kinds:
        return lambda args: check(native(nothing, failure, *args))
    result = _RESULTS[kinds[0]] * len(kinds)

    def call(args: list[Any]) -> Any:
        found = result()
        check(native(found, failure, *args))
        return tuple(found) if is_tuple else found[0]

    return call


@cache
def target() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )


_engines: list[Any] = []  # an engine that is collected takes its code with it


def _address(code: bytes) -> int:
    return linked(code, SYMBOL) or _loaded(code)


def _loaded(code: bytes) -> int:
    """The address, by LLVM's loader."""
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target())
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(SYMBOL))
