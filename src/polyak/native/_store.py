"""Where compiled kernels are kept: files that are believed only if they are whole and meant for this machine.

A file is the digest of the rest, what the kernel returns, and an object file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

if TYPE_CHECKING:
    from ._kernel import Kernel

_DIGEST_NBYTES, _RESULT_NBYTES = 16, 8
SYMBOL = "polyak_kernel"


@dataclass(frozen=True)
class Compiled:
    """A kernel in machine code.

    Attributes:
        result: What it returns, a letter an item: q a whole number, d a real one, ? a bool; `-` first if a tuple.
        code: An object file that defines SYMBOL and needs nothing from outside.
    """

    result: str
    code: bytes


def place_of(kernel: Kernel, key: tuple[Any, ...]) -> Path:
    """The file for a kernel and the types of its arguments; another source, compiler or processor, another file."""
    about = repr((_machine(), _meaning_of(kernel.code), key))
    name = f"{kernel.__module__}.{kernel.__name__}.{xxhash.xxh3_128_hexdigest(about.encode())}.kernel"
    return folder(Path(kernel.code.__code__.co_filename).parent) / name


def read(place: Path) -> Compiled | None:
    """What is kept there; None if nothing is, or it is damaged: a torn object file would crash the process."""
    try:
        data = place.read_bytes()
    except OSError:
        return None
    digest, rest = data[:_DIGEST_NBYTES], data[_DIGEST_NBYTES:]
    if xxhash.xxh3_128_digest(rest) != digest:
        return None
    return Compiled(rest[:_RESULT_NBYTES].rstrip().decode(), rest[_RESULT_NBYTES:])


def write(place: Path, compiled: Compiled) -> None:
    """Keep a kernel, in one step. Without a place to write to it is compiled again next time."""
    rest = compiled.result.encode().ljust(_RESULT_NBYTES) + compiled.code
    try:
        fd, draft = tempfile.mkstemp(prefix=f"{place.name}.", dir=place.parent)
        with os.fdopen(fd, "wb") as file:
            file.write(xxhash.xxh3_128_digest(rest) + rest)
        Path(draft).replace(place)
    except OSError:
        pass


@cache
def folder(source: Path) -> Path:
    """Numba's rule: its variable, else beside the source, else in the user's cache."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(named)]
    else:
        places = [source / "__pycache__"]
        with suppress(RuntimeError):  # the user has no home
            places.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyak")
    for place in places:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    return places[-1]


@cache
def _machine() -> str:
    """Everything beside the source that machine code depends on."""
    versions = (sys.implementation.cache_tag, np.__version__, _version("numba"), _version("llvmlite"))
    builder = Path(__file__).with_name("_build.py").read_bytes()
    return repr((versions, _processor(), xxhash.xxh3_128_hexdigest(builder)))


def _version(package: str) -> str:
    """The version of a package, which is not imported: that would take longer than a small merge."""
    found = find_spec(package)
    named = Path(found.origin or "").with_name("_version.py") if found else Path()
    if named.is_file():
        return xxhash.xxh3_128_hexdigest(named.read_bytes())
    from importlib.metadata import version

    return version(package)


def _processor() -> str:
    """What the first processor is and can do, in the kernel's words; in LLVM's where there are none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            first = list(takewhile(str.strip, file))
    except OSError:
        first = []
    said = [line for line in first if line.partition(":")[0].strip() in _SAID]
    if not any(line.startswith(("flags", "Features")) for line in said):
        from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

        said = [get_host_cpu_name(), get_host_cpu_features().flatten()]
    return "".join(said)


# Of /proc/cpuinfo, on x86 and on ARM; what changes from boot to boot, as the clock's rate does, is not among them.
_SAID = frozenset(
    {
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
        *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    }
)


def _meaning_of(fn: FunctionType) -> list[Any]:
    """A function's code, and that of the functions and constants that it names."""
    from ._kernel import Source

    found = _code(fn.__code__)
    for name in fn.__code__.co_names:
        value = fn.__globals__.get(name)
        if isinstance(value, Source):
            found.append(_meaning_of(value.code))
        elif value is not None and not isinstance(value, ModuleType | FunctionType):
            found.append((name, repr(value)))
    return found


def _code(code: CodeType) -> list[Any]:
    consts = [_code(const) if isinstance(const, CodeType) else repr(const) for const in code.co_consts]
    return [code.co_code, consts, code.co_names, code.co_varnames]
