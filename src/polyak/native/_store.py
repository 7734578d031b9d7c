"""The cache of compiled kernels: files that are used only if they are whole, for this machine, and nobody else's.

A file is a digest of its name and the rest, the letters of the kernel's result, and an object file.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import xxhash

from ._signature import Key
from ._source import Source

_DIGEST_NBYTES, _RESULT_NBYTES = 16, 8
_NOWHERE = Path(os.devnull) / "kernels"  # neither read nor written
SYMBOL = "polyak_kernel"


@dataclass(frozen=True)
class Compiled:
    """A kernel in machine code.

    Attributes:
        result: One letter per item that it returns: q for int64, d for float64, ? for bool; `-` first for a tuple.
        code: An object file that defines SYMBOL and needs nothing from outside.
    """

    result: str
    code: bytes


def path_of(kernel: Source, key: Key) -> Path:
    """The file for a kernel and the types of its arguments; another source, compiler or processor, another file."""
    about = repr((_machine(), _meaning_of(kernel.code), key))
    name = f"{kernel.__module__}.{kernel.__name__}.{xxhash.xxh3_128_hexdigest(about.encode())}.kernel"
    return folder(Path(kernel.code.__code__.co_filename).parent) / name


def read(path: Path) -> Compiled | None:
    """Read a stored kernel.

    Returns None if there is none, if it is damaged or renamed (a torn object file would crash the process), and, with
    a warning, if somebody else could have written it.
    """
    try:
        with path.open("rb") as file:
            reason = _distrusted(os.fstat(file.fileno()))
            data = b"" if reason else file.read()
    except OSError:
        return None
    if reason:
        warnings.warn(f"ignoring the compiled kernel {path}: it {reason}. Delete it.", RuntimeWarning, stacklevel=2)
    digest, rest = data[:_DIGEST_NBYTES], data[_DIGEST_NBYTES:]
    if _digest(path, rest) != digest:
        return None
    return Compiled(rest[:_RESULT_NBYTES].rstrip().decode(), rest[_RESULT_NBYTES:])


def write(path: Path, compiled: Compiled) -> None:
    """Keep a kernel, in one step. Where nothing can be written it is compiled again next time."""
    rest = compiled.result.encode().ljust(_RESULT_NBYTES) + compiled.code
    with suppress(OSError):
        fd, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(_digest(path, rest) + rest)
            Path(draft).replace(path)
        except BaseException:  # a full disk, a folder of this name, or an interrupt
            Path(draft).unlink(missing_ok=True)
            raise


def _digest(path: Path, rest: bytes) -> bytes:
    """Digest the name too: a kernel's file under the name of another kernel is rejected."""
    return xxhash.xxh3_128_digest(path.name.encode() + b"\0" + rest)


@cache
def folder(source: Path) -> Path:
    """Choose the cache folder: NUMBA_CACHE_DIR, else one next to the source, else one in the user's cache.

    Folders that somebody else may write to are skipped with a warning: what they hold would be run.
    """
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        candidates = [Path(named)]
    else:
        candidates = [source / "__pycache__" / "kernels"]
        with suppress(RuntimeError):  # the user has no home
            candidates.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyak")
    return next((candidate for candidate in candidates if _is_usable(candidate)), _NOWHERE)


def _is_usable(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = _distrusted(path.stat())
    except OSError:
        return False
    if reason:
        warnings.warn(
            f"ignoring the cache of compiled kernels {path}: it {reason}. "
            f"Remedy: chmod go-w {path} if it is yours, or name another folder in NUMBA_CACHE_DIR.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not reason and os.access(path, os.W_OK)


def _distrusted(status: os.stat_result) -> str:
    """Why a file or folder of the cache is not trusted; empty if it is the user's own or root's, and only theirs."""
    if sys.platform == "win32":
        return ""
    if status.st_uid not in {os.geteuid(), 0}:
        return "belongs to another user"
    return "is writable by others" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


@cache
def _machine() -> str:
    """Everything but the source that machine code depends on."""
    versions = (sys.implementation.cache_tag, np.__version__, _version("numba"), _version("llvmlite"))
    builder = Path(__file__).with_name("_build.py").read_bytes()
    return repr((versions, _processor(), xxhash.xxh3_128_hexdigest(builder)))


def _version(package: str) -> str:
    """The version of a package without importing it: that would take longer than a small merge."""
    spec = find_spec(package)
    path = Path(spec.origin or "").with_name("_version.py") if spec else Path()
    if path.is_file():
        return xxhash.xxh3_128_hexdigest(path.read_bytes())
    from importlib.metadata import version

    return version(package)


def _processor() -> str:
    """Model and instruction sets of the first processor, as Linux tells them; elsewhere, as LLVM does."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            first = list(takewhile(str.strip, file))
    except OSError:
        first = []
    lines = [line for line in first if line.partition(":")[0].strip() in _LASTING]
    if not any(line.startswith(("flags", "Features")) for line in lines):
        from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

        lines = [get_host_cpu_name(), get_host_cpu_features().flatten()]
    return "".join(lines)


# Fields of /proc/cpuinfo on x86 and ARM, without those that change from boot to boot, as the clock rate does.
_LASTING = frozenset(
    {
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
        *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    }
)


def _meaning_of(fn: FunctionType) -> list[Any]:
    """A function's code, and that of the functions and constants that it names."""
    meaning = _code(fn.__code__)
    for name in fn.__code__.co_names:
        value = fn.__globals__.get(name)
        if isinstance(value, Source):
            meaning.append(_meaning_of(value.code))
        elif value is not None and not isinstance(value, ModuleType | FunctionType):
            meaning.append((name, repr(value)))
    return meaning


def _code(code: CodeType) -> list[Any]:
    consts = [_code(const) if isinstance(const, CodeType) else repr(const) for const in code.co_consts]
    return [code.co_code, consts, code.co_names, code.co_varnames]
