"""Float32 LAPACK routines that NumPy's wheels bring but do not expose, called by their exported names.

NumPy computes eigenvalues in float64 whatever it is given, always all of them, and offers no tridiagonal and bidiagonal
forms. Its wheels bundle the OpenBLAS of the package scipy-openblas64, whose LAPACK symbols begin with `scipy_` and end
with `_64_`, after the size of their integers. They are called through ctypes since neither alternative will do. SciPy
(143 MB, no dependency of polyak) does not wrap `sormtr`, `sgebrd` and `sormbr`, and its own OpenBLAS gives other bytes
(`ssyevr` of SciPy 1.17.1 against NumPy 2.4.6). Float64 takes about twice the time, and rounds to other bytes. No other
file knows of these symbols. Without them (NumPy of a distribution, or of a system whose wheels use another library)
`routine` returns None, and all callers fall back to NumPy's float64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def routine(name: str) -> Callable[..., int] | None:
    """Look a LAPACK routine up by its Fortran name; it takes Python's numbers, words and arrays, and returns `info`."""
    if (library := _library()) is None or (symbol := getattr(library, f"scipy_{name}_64_", None)) is None:
        return None
    symbol.restype = None

    def call(*arguments: Any) -> int:
        info = ctypes.c_int64(0)
        lengths = [ctypes.c_size_t(1) for one in arguments if isinstance(one, str)]  # of texts: Fortran's last
        symbol(*map(_address, arguments), ctypes.byref(info), *lengths)
        return info.value

    return call


def _address(argument: Any) -> Any:
    """Fortran takes every argument by its address."""
    match argument:
        case str():
            return ctypes.c_char_p(argument.encode())
        case int():
            return ctypes.byref(ctypes.c_int64(argument))
        case float():
            return ctypes.byref(ctypes.c_float(argument))
        case _:
            return ctypes.c_void_p(argument.ctypes.data)


@cache
def _library() -> ctypes.CDLL | None:
    from threadpoolctl import threadpool_info

    for info in threadpool_info():
        library = ctypes.CDLL(info["filepath"])
        if info["user_api"] == "blas" and hasattr(library, "scipy_ssyevd_64_"):
            return library
    return None
