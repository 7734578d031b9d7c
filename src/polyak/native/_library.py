"""Kernels that were compiled when the wheel was built: one shared library per level of instruction sets.

A library exports one function per variant and `polyak_index`, one line per variant: its symbol and the letters of its
result. The operating system's loader maps it like any other library, so it works where processes may not make code.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import xxhash

from ..errors import KernelUnavailable
from ._signature import Key, spelled

FOLDER = Path(__file__).with_name("libraries")
VARIABLE = "POLYAK_KERNEL_LEVEL"
NONE = "none"
INDEX = "polyak_index"

# Per level of the x86-64 psABI, from the highest down: flags of /proc/cpuinfo beyond those of the level below it.
_X86_64: dict[str, str] = {
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
    "x86-64-v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
    "x86-64-v2": "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2",
}
LEVELS = (*_X86_64, "aarch64")


class Prebuilt(NamedTuple):
    """A variant in a library: the address of its code, and the letters of its result as in `Compiled`."""

    address: int
    result: str


class Library:
    """One shared library of kernels.

    Raises:
        KernelUnavailable: The file is damaged, or no such library.
    """

    def __init__(self, path: Path) -> None:
        try:
            _refuse_truncated(path)
            self._library = ctypes.CDLL(str(path))
            text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(self._library, INDEX)))
            results = dict(line.split(" ") for line in text.decode().splitlines())
            self._variants = {symbol: Prebuilt(self._address(symbol), result) for symbol, result in results.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise KernelUnavailable(
                f"{path} is not a whole library of kernels: {error}. Install polyak again, or set {VARIABLE}={NONE}."
            ) from error

    def find(self, symbol: str) -> Prebuilt | None:
        """Look up a variant by its symbol; None if the library has no such variant."""
        return self._variants.get(symbol)

    def _address(self, symbol: str) -> int:
        return ctypes.cast(getattr(self._library, symbol), ctypes.c_void_p).value or 0


# Of the ELF header of 64-bit systems: offset of the section headers, bytes per header, number of headers.
_SECTIONS = struct.Struct("<40xQ10xHH")


def _refuse_truncated(path: Path) -> None:
    """Raise OSError if the section headers, which end the file, are cut off: the loader would die by SIGBUS."""
    with path.open("rb") as file:
        header = file.read(_SECTIONS.size).ljust(_SECTIONS.size, b"\0")
        offset, header_nbytes, n_headers = _SECTIONS.unpack(header)
        expected, nbytes = offset + header_nbytes * n_headers, os.fstat(file.fileno()).st_size
    if nbytes < expected:
        raise OSError(f"{nbytes:,} bytes where its header announces {expected:,}")


def symbol_of(identity: str, key: Key) -> str:
    """The exported name of a variant."""
    return f"polyak_{xxhash.xxh3_128_hexdigest(f'{identity}({spelled(key)})'.encode())}"


def find(identity: str, key: Key) -> Prebuilt | None:
    """A variant in the library for this machine; None without a library, and if the library lacks the variant.

    Args:
        identity: The kernel, as `Source.identity` names it.
        key: The types of its arguments.

    Raises:
        KernelUnavailable: POLYAK_KERNEL_LEVEL asks for a level that cannot be used here.
    """
    library = opened(level())
    return library and library.find(symbol_of(identity, key))


@cache
def opened(level: str) -> Library | None:
    """The library of a level; None for `none`."""
    return None if level == NONE else Library(library_path(level))


def library_path(level: str) -> Path:
    """The file of a level's library, whether it exists or not."""
    return FOLDER / f"kernels-{level}.so"


def level() -> str:
    """The highest level that the processor and the installation have, or the one POLYAK_KERNEL_LEVEL asks for."""
    return _forced(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _best()


@cache
def _best() -> str:
    return next(iter(usable_levels()), NONE)


def usable_levels() -> tuple[str, ...]:
    """The levels that the processor supports and for which the installation has a library, from the highest down."""
    return tuple(level for level in supported_levels() if library_path(level).is_file())


def _forced(level: str) -> str:
    if level not in (*LEVELS, NONE):
        raise KernelUnavailable(f"{VARIABLE}={level}: unknown level. Known: {', '.join((*LEVELS, NONE))}.")
    if level != NONE and level not in supported_levels():
        usable = ", ".join(supported_levels()) or "no level"
        raise KernelUnavailable(f"{VARIABLE}={level}: this processor supports {usable}. Unset the variable.")
    if level != NONE and not library_path(level).is_file():
        raise KernelUnavailable(
            f"{VARIABLE}={level}: no {library_path(level)}. Install a wheel that has it, or unset the variable."
        )
    return level


@cache
def supported_levels() -> tuple[str, ...]:
    """The levels whose instructions the processor has, from the highest down. Libraries are made for Linux alone."""
    machine = platform.machine().lower() if platform.system() == "Linux" else ""
    if machine in {"aarch64", "arm64"}:
        return ("aarch64",)
    return _x86_64_levels(_flags()) if machine in {"x86_64", "amd64"} else ()


def _x86_64_levels(flags: frozenset[str]) -> tuple[str, ...]:
    """Each level needs its own flags and those of every level below it."""
    levels = list(_X86_64)
    needed = [set(" ".join(list(_X86_64.values())[i:]).split()) for i in range(len(levels))]
    return tuple(level for level, names in zip(levels, needed, strict=True) if names <= flags)


def _flags() -> frozenset[str]:
    """Flags of the first processor, as the Linux kernel names them."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            first = list(takewhile(str.strip, file))
    except OSError:
        return frozenset()
    line = next((line for line in first if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())
