"""Types of kernel arguments.

As annotations they declare the variant of a kernel that a wheel contains; at a call the same types choose the variant.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from itertools import product
from types import FunctionType
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np

C_CONTIGUOUS, ALIGNED = 0x001, 0x100  # bits of `ndarray.flags.num`
LAYOUT = C_CONTIGUOUS | ALIGNED

Kind = Any
"""One argument: (dtype, number of dimensions, layout) of an array, or the type of a scalar."""
Key = tuple[Kind, ...]
"""The arguments of one variant."""


@dataclass(frozen=True)
class Array:
    """A C-contiguous, aligned array."""

    dtype: str
    ndim: int

    @property
    def kind(self) -> Kind:
        """The array as part of a key."""
        return array_kind(self.dtype, self.ndim)


def array_kind(dtype: Any, ndim: int) -> Kind:
    """A C-contiguous, aligned array as part of a key."""
    return np.dtype(dtype), ndim, LAYOUT


# Numba infers the types inside a kernel, so type checkers see `Any`.
F32 = Annotated[Any, Array("float32", 1)]
F32Rows = Annotated[Any, Array("float32", 2)]
F32Planes = Annotated[Any, Array("float32", 3)]
F64 = Annotated[Any, Array("float64", 1)]
F64Rows = Annotated[Any, Array("float64", 2)]
F64Planes = Annotated[Any, Array("float64", 3)]
I64 = Annotated[Any, Array("int64", 1)]
I64Rows = Annotated[Any, Array("int64", 2)]
I64Planes = Annotated[Any, Array("int64", 3)]
U8 = Annotated[Any, Array("uint8", 1)]
U8Rows = Annotated[Any, Array("uint8", 2)]
U16 = Annotated[Any, Array("uint16", 1)]
U16Rows = Annotated[Any, Array("uint16", 2)]
U32 = Annotated[Any, Array("uint32", 1)]
U32Rows = Annotated[Any, Array("uint32", 2)]
U64Rows = Annotated[Any, Array("uint64", 2)]

SCALARS: dict[type, Any] = {
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


def declared_keys(fn: FunctionType, **overrides: Kind) -> list[Key]:
    """One key per combination of the annotated types; empty if a parameter is not annotated with such a type.

    Args:
        fn: The function; `*args` are left out.
        overrides: Kinds of parameters in place of their annotations.
    """
    hints = get_type_hints(fn, include_extras=True)
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    return list(product(*([overrides[name]] if name in overrides else _kinds(hints.get(name)) for name in names)))


def _kinds(hint: Any) -> list[Kind]:
    """The kinds that an annotation admits: several for a union, none where it names no type of a kernel argument."""
    if hint in SCALARS:
        return [hint]
    if metadata := getattr(hint, "__metadata__", ()):
        return [item.kind for item in metadata if isinstance(item, Array)]
    return [kind for part in get_args(hint) for kind in _kinds(part)]


def spelled(key: Key) -> str:
    """A key as text that does not depend on the versions of Python and NumPy."""
    return ", ".join(_spelled(kind) for kind in key)


def _spelled(kind: Kind) -> str:
    if not isinstance(kind, tuple):
        return np.dtype(kind).name  # Python's int and int64 are one type to a kernel
    dtype, ndim, layout = kind
    plain = layout & LAYOUT == LAYOUT
    return f"{np.dtype(dtype).name}[{ndim}]" if plain else f"{np.dtype(dtype).name}[{ndim}, {layout}]"
