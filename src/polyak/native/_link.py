"""Put an object file of ours into memory, ready to run.

LLVM's loader does that for any machine, but to import it takes as long as to read a gigabyte. What is compiled for
x86-64 here is simple: a few sections, 64-bit addresses to be filled in, and nothing from outside but two functions of
the C library.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from struct import iter_unpack, unpack_from
from typing import Any, NamedTuple

_X86_64, _RELOCATABLE = 62, 1
_SYMBOLS, _ADDENDS, _EMPTY, _ALLOCATED = 2, 4, 8, 0x2  # kinds of sections, and a flag of theirs
_ABSOLUTE = 1  # R_X86_64_64: the symbol's address and an addend, in eight bytes
_FROM_C = (b"memset", b"memcpy", b"memmove")

_held: list[mmap.mmap] = []  # code lives as long as the process


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


class _Unknown(Exception):
    """Something that only LLVM's loader can do."""


def linked(code: bytes, symbol: str) -> int | None:
    """The address of a symbol of an object file that has been put into memory; None if that takes LLVM's loader."""
    try:
        return _link(code, symbol.encode())
    except (_Unknown, OSError):
        return None


def _link(code: bytes, symbol: bytes) -> int:
    sections = _sections(code)
    places, size = _places(sections)
    memory = mmap.mmap(-1, size, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for i, place in places.items():
        memory[place : place + sections[i].size] = code[sections[i].offset : sections[i].offset + sections[i].size]
    found = 0
    for table in (s for s in sections if s.kind == _SYMBOLS):
        names = _symbols(code, sections, table)
        addresses = [_address(name, one, begin, places) for name, one in names]
        _fill_in(code, sections, table, addresses, places, memory)
        found = next((address for (name, _), address in zip(names, addresses, strict=True) if name == symbol), found)
    if not found or ctypes.CDLL(None).mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(size), 5):  # read, execute
        raise _Unknown
    _held.append(memory)
    return found


def _sections(code: bytes) -> list[_Section]:
    if code[:6] != b"\x7fELF\x02\x01" or unpack_from("<HH", code, 16) != (_RELOCATABLE, _X86_64):
        raise _Unknown
    offset, (size, count) = unpack_from("<Q", code, 40)[0], unpack_from("<HH", code, 58)
    return [_Section(*one) for one in iter_unpack("<IIQQQQIIQQ", code[offset : offset + size * count])]


def _places(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Where each section that is part of the program comes to lie, and how many bytes they take."""
    places: dict[int, int] = {}
    end = 0
    for i, one in enumerate(sections):
        if one.flags & _ALLOCATED:
            if one.kind == _EMPTY:
                raise _Unknown
            places[i] = -(-end // max(one.alignment, 1)) * max(one.alignment, 1)
            end = places[i] + one.size
    return places, max(end, 1)


def _symbols(code: bytes, sections: list[_Section], table: _Section) -> list[tuple[bytes, _Symbol]]:
    names = sections[table.link].offset
    found = [_Symbol(*one) for one in iter_unpack("<IBBHQQ", code[table.offset : table.offset + table.size])]
    return [(code[names + one.name : code.index(b"\0", names + one.name)], one) for one in found]


def _address(name: bytes, symbol: _Symbol, begin: int, places: dict[int, int]) -> int | None:
    if symbol.section in places:
        return begin + places[symbol.section] + symbol.value
    if name in _FROM_C and symbol.section == 0:
        return ctypes.cast(getattr(ctypes.CDLL(None), name.decode()), ctypes.c_void_p).value
    return None


def _fill_in(
    code: bytes,
    sections: list[_Section],
    table: _Section,
    addresses: list[int | None],
    places: dict[int, int],
    memory: Any,
) -> None:
    for one in sections:
        if one.kind == _ADDENDS and sections[one.link] == table and one.info in places:
            for offset, address in _relocations(code, one, addresses):
                at = places[one.info] + offset
                memory[at : at + 8] = address.to_bytes(8, "little")


def _relocations(code: bytes, section: _Section, addresses: list[int | None]) -> Iterator[tuple[int, int]]:
    for offset, info, addend in iter_unpack("<QQq", code[section.offset : section.offset + section.size]):
        address = addresses[info >> 32]
        if info & 0xFFFFFFFF != _ABSOLUTE or address is None:
            raise _Unknown
        yield offset, address + addend
