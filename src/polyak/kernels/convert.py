"""Conversion between stored dtypes and float32 tiles.

`decode` widens exactly (float64 is rounded), `encode` rounds once, to nearest, ties to even. Both report whether
all entries were finite: found while loading, a NaN can be traced to the model that has it; while storing, it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import DTYPES, DType
from ..native import F32, F64, U8, U16, F32Rows, F64Rows, U8Rows, U16Rows, U32Rows, inlined, kernel

Tile = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_EXPONENT = np.uint32(0x7F800000)


def decode(stored: Bytes, dtype: DType, out: Tile) -> bool:
    """Widen stored elements to float32; False if one of them is NaN or infinite.

    Args:
        stored: The elements as bytes.
        dtype: Their dtype.
        out: float32, one per element.
    """
    return decode_rows(stored[None], dtype, 0, out[None], relative=False) < 0


def decode_rows(stored: Bytes, dtype: DType, offset: int, out: Tile, *, relative: bool) -> int:
    """Widen the same range of every row to float32.

    Args:
        stored: (rows, bytes), C-contiguous.
        dtype: Dtype of the elements.
        offset: Index of the first element in each row.
        out: (rows, n) float32, C-contiguous.
        relative: Subtract the last row from the others.

    Returns:
        The first row that holds NaN or infinity; -1 if there is none.
    """
    view, convert, extra = _decoders()[dtype.name]
    return int(convert(stored.view(view), offset, out, relative, *extra))


def encode(tile: Tile, dtype: DType, out: Bytes) -> bool:
    """Round float32 to a stored dtype; False if an entry overflows there (float16 ends at 65504, F8_E4M3 at 448).

    Args:
        tile: float32 entries.
        dtype: Dtype to store.
        out: As many elements as bytes.
    """
    view, convert, extra = _encoders()[dtype.name]
    return bool(convert(tile, out.view(view), *extra))


Codec = tuple[Any, Any]
"""The NumPy type in which a kernel sees stored entries, and the kernel."""


def decoder(dtype: DType) -> Codec | None:
    """The kernel of `decode_rows` for a dtype; None if it takes a table too."""
    view, convert, extra = _decoders()[dtype.name]
    return None if extra else (view, convert)


def encoder(dtype: DType) -> Codec | None:
    """The kernel of `encode` for a dtype; None if it takes more than the tile and the output."""
    view, convert, extra = _encoders()[dtype.name]
    return None if extra else (view, convert)


def decoders() -> list[Codec]:
    """Every kernel that `decoder` returns."""
    return [codec for name in _decoders() if (codec := decoder(DTYPES[name]))]


def encoders() -> list[Codec]:
    """Every kernel that `encoder` returns."""
    return [codec for name in _encoders() if (codec := encoder(DTYPES[name]))]


@cache
def _decoders() -> Mapping[str, tuple[Any, Callable[..., int], tuple[Any, ...]]]:
    tables = {name: np.arange(256, dtype=np.uint8).view(DTYPES[name].numpy).astype(np.float32) for name in _EIGHT_BITS}
    return {
        "F64": (np.float64, _from_f64, ()),
        "F32": (np.uint32, _from_f32, ()),
        "F16": (np.uint16, _from_f16, ()),
        "BF16": (np.uint16, _from_bf16, ()),
        **{name: (np.uint8, _from_table, (table,)) for name, table in tables.items()},
    }


@cache
def _encoders() -> Mapping[str, tuple[Any, Callable[..., bool], tuple[Any, ...]]]:
    return {
        "F64": (np.float64, _cast, ()),
        "F32": (np.float32, _cast, ()),
        "F16": (np.uint16, _to_f16, ()),
        "BF16": (np.uint16, _to_bf16, ()),
        **{name: (np.uint8, _to_eight_bits, numbers) for name, numbers in _EIGHT_BITS.items()},
    }


# Mantissa bits, exponent bias, largest finite pattern.
_EIGHT_BITS = {
    "F8_E4M3": (np.uint32(3), np.uint32(7), np.uint32(0x7E)),
    "F8_E5M2": (np.uint32(2), np.uint32(15), np.uint32(0x7B)),
}


# Numba widens integer arithmetic to 64 bits, which halves the width of the vector code: hence the many uint32().
# Finiteness is checked once per row, by the largest exponent: a maximum vectorises, an early exit does not.


@inlined
def _bits(number: Any) -> Any:
    return np.float32(number).view(np.uint32)


@inlined
def _float(bits: Any) -> Any:
    return np.uint32(bits).view(np.float32)


@inlined
def _subtract_last(out: Any, relative: Any) -> None:
    if relative:
        last = out[out.shape[0] - 1]
        for r in range(out.shape[0] - 1):
            row = out[r]
            for i in range(row.size):
                row[i] -= last[i]


@kernel
def _from_bf16(stored: U16Rows, offset: int, out: F32Rows, relative: bool) -> int:
    for r in range(out.shape[0]):
        wide_row, bits = out[r], stored[r, offset : offset + out.shape[1]]
        top = np.uint32(0)
        for i in range(wide_row.size):
            wide = np.uint32(np.uint32(bits[i]) << np.uint32(16))
            top = max(top, np.uint32(wide & _EXPONENT))
            wide_row[i] = _float(wide)
        if top >= _EXPONENT:
            return r
    _subtract_last(out, relative)
    return -1


@kernel
def _from_f16(stored: U16Rows, offset: int, out: F32Rows, relative: bool) -> int:
    for r in range(out.shape[0]):
        wide_row, bits = out[r], stored[r, offset : offset + out.shape[1]]
        top = np.uint32(0)
        for i in range(wide_row.size):
            half = np.uint32(bits[i])
            sign = np.uint32(np.uint32(half & np.uint32(0x8000)) << np.uint32(16))
            rest = np.uint32(half & np.uint32(0x7FFF))
            top = max(top, rest)
            # Exponent and mantissa moved to their float32 positions; 2**112 corrects the bias, for subnormals too.
            magnitude = _float(np.uint32(rest << np.uint32(13))) * np.float32(2.0**112)
            wide_row[i] = _float(_bits(magnitude) | sign)
        if top >= np.uint32(0x7C00):
            return r
    _subtract_last(out, relative)
    return -1


@kernel
def _from_table(stored: U8Rows, offset: int, out: F32Rows, relative: bool, table: F32) -> int:
    for r in range(out.shape[0]):
        wide_row, codes = out[r], stored[r, offset : offset + out.shape[1]]
        top = np.uint32(0)
        for i in range(wide_row.size):
            wide = table[codes[i]]
            top = max(top, np.uint32(_bits(wide) & _EXPONENT))
            wide_row[i] = wide
        if top >= _EXPONENT:
            return r
    _subtract_last(out, relative)
    return -1


@kernel
def _from_f32(stored: U32Rows, offset: int, out: F32Rows, relative: bool) -> int:
    for r in range(out.shape[0]):
        wide_row, bits = out[r], stored[r, offset : offset + out.shape[1]]
        top = np.uint32(0)
        for i in range(wide_row.size):
            pattern = np.uint32(bits[i])
            top = max(top, np.uint32(pattern & _EXPONENT))
            wide_row[i] = _float(pattern)
        if top >= _EXPONENT:
            return r
    _subtract_last(out, relative)
    return -1


@kernel
def _from_f64(stored: F64Rows, offset: int, out: F32Rows, relative: bool) -> int:
    for r in range(out.shape[0]):
        wide_row, numbers = out[r], stored[r, offset : offset + out.shape[1]]
        top = np.uint32(0)
        for i in range(wide_row.size):
            single = np.float32(numbers[i])
            top = max(top, np.uint32(_bits(single) & _EXPONENT))
            wide_row[i] = single
        if top >= _EXPONENT:
            return r
    _subtract_last(out, relative)
    return -1


@kernel
def _cast(numbers: F32, out: F32 | F64) -> Any:
    """To float32 or float64, which both hold float32 exactly."""
    top = np.uint32(0)
    for i in range(numbers.size):
        single = np.float32(numbers[i])
        top = max(top, np.uint32(_bits(single) & _EXPONENT))
        out[i] = single
    return top < _EXPONENT


@kernel
def _to_bf16(tile: F32, out: U16) -> Any:
    top = np.uint32(0)
    for i in range(tile.size):
        bits = _bits(tile[i])
        odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd)
        # A NaN can round out of its exponent, so look at both.
        top = max(top, max(np.uint32(rounded & _EXPONENT), np.uint32(bits & _EXPONENT)))
        out[i] = np.uint16(rounded >> np.uint32(16))
    return top < _EXPONENT


@inlined
def _round_to_small(bits: Any, mantissa: Any, bias: Any) -> Any:
    """Round the magnitude `bits` of a float32 to a small float's pattern, to nearest even.

    Below the smallest normal number, adding a float whose unit in the last place is the small float's
    smallest step makes the addition itself round.
    """
    drop = np.uint32(np.uint32(23) - mantissa)
    magic = np.uint32(np.uint32(np.uint32(np.uint32(127) - bias) + np.uint32(drop + np.uint32(1))) << np.uint32(23))
    smallest_normal = np.uint32(np.uint32(np.uint32(128) - bias) << np.uint32(23))
    subnormal = np.uint32(_bits(_float(bits) + _float(magic)) - magic)
    odd = np.uint32(np.uint32(bits >> drop) & np.uint32(1))
    half = np.uint32(np.uint32(np.uint32(1) << np.uint32(drop - np.uint32(1))) - np.uint32(1))
    rebiased = np.uint32(bits - np.uint32(np.uint32(np.uint32(127) - bias) << np.uint32(23)))
    normal = np.uint32(np.uint32(np.uint32(rebiased + half) + odd) >> drop)
    return subnormal if bits < smallest_normal else normal


@kernel
def _to_f16(tile: F32, out: U16) -> Any:
    top = np.uint32(0)
    for i in range(tile.size):
        bits = _bits(tile[i])
        small = _round_to_small(np.uint32(bits & np.uint32(0x7FFFFFFF)), np.uint32(10), np.uint32(15))
        top = max(top, small)
        out[i] = np.uint16(small | np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000)))
    return top <= np.uint32(0x7BFF)


@kernel
def _to_eight_bits(tile: F32, out: U8, mantissa: np.uint32, bias: np.uint32, largest: np.uint32) -> Any:
    top = np.uint32(0)
    for i in range(tile.size):
        bits = _bits(tile[i])
        small = _round_to_small(np.uint32(bits & np.uint32(0x7FFFFFFF)), mantissa, bias)
        top = max(top, small)
        out[i] = np.uint8(small | np.uint32(np.uint32(bits >> np.uint32(24)) & np.uint32(0x80)))
    return top <= largest
