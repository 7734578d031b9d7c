"""Call compiled kernels, and load those that are not in a library."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from ..errors import KernelUnavailable
from ._signature import SCALARS, Key
from ._store import SYMBOL

HEADER_NBYTES = object.__basicsize__  # of every Python object; longer in free-threaded builds
_RESULTS = {"q": ctypes.c_int64, "d": ctypes.c_double, "?": ctypes.c_bool}


def refuse_other_types(key: Key, name: str) -> None:
    """Refuse arguments that are neither arrays nor numbers.

    Raises:
        TypeError: there is one.
    """
    for kind in key:
        if not isinstance(kind, tuple) and kind not in SCALARS:
            raise TypeError(f"kernel {name} takes arrays, numbers and bools; got {kind.__name__}.")


def callable_of(address: int, result: str, key: Key, name: str) -> Callable[[list[Any]], Any]:
    """A function of one list: scalars, and for each array the address behind its object header.

    Args:
        address: The machine code.
        result: Letters of the result, as in `Compiled`.
        key: The types of the arguments.
        name: The kernel, for messages.
    """
    passed = [ctypes.c_void_p if isinstance(kind, tuple) else SCALARS[kind] for kind in key]
    convention = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *passed)
    native = convention(address)

    def check(status: int) -> None:
        if status:
            raise RuntimeError(f"kernel {name} failed with status {status}.")

    is_tuple = result.startswith("-")
    letters = result.removeprefix("-")
    nothing, failure = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    if not letters:
        return lambda args: check(native(nothing, failure, *args))
    results = _RESULTS[letters[0]] * len(letters)

    def call(args: list[Any]) -> Any:
        out = results()
        check(native(out, failure, *args))
        return tuple(out) if is_tuple else out[0]

    return call


@cache
def target() -> Any:
    """LLVM's description of this machine."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )


_engines: list[Any] = []  # an engine that is collected takes its code with it


def address_of(code: bytes) -> int:
    """Load an object file with LLVM's loader: the address of SYMBOL.

    Raises:
        KernelUnavailable: This system forbids executable memory; LLVM would crash.
    """
    if not _may_make_code():
        raise KernelUnavailable(
            "this system forbids processes to make executable memory, which kernels compiled here need. "
            "Install a wheel of polyak: its kernels are an ordinary shared library."
        )
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target())
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(SYMBOL))


@cache
def _may_make_code() -> bool:
    """Try it with one page, as LLVM would: written first, then executable."""
    if sys.platform == "win32":
        return True
    page = mmap.mmap(-1, mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(page))
    mprotect = ctypes.CDLL(None).mprotect
    return mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(len(page)), mmap.PROT_READ | mmap.PROT_EXEC) == 0
