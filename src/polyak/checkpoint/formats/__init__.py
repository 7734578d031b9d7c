"""File formats of checkpoints: one registry, from the suffix of a file to the function that opens it.

To add a format, add one file to this folder, or name a module in the entry-point group `polyak.formats`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from ...declare import Registry, summary_of
from ...errors import CheckpointError, DeclarationError, UnsupportedFormat
from .._api import Checkpoint

Opener = TypeVar("Opener", bound=Callable[..., Checkpoint])

# Formats of other libraries, by suffix, that are recognised and refused by name.
FOREIGN: Mapping[str, str] = MappingProxyType(
    {".gguf": "a GGUF", ".h5": "a TensorFlow", ".msgpack": "a Flax", ".onnx": "an ONNX"}
)


@dataclass(frozen=True)
class Format:
    """A file format of checkpoints.

    Attributes:
        suffixes: The suffixes of its files.
        open: Opens the file at a path, reading headers only; it may take `key`, the path of the state dict.
        in_folders: Those of the suffixes that weight files have on the Hugging Face Hub.
    """

    suffixes: tuple[str, ...]
    open: Callable[..., Checkpoint]
    in_folders: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.open)


def _unknown(suffix: str, registered: Iterable[str]) -> UnsupportedFormat:
    return UnsupportedFormat(f"no checkpoint format has the suffix {suffix!r}. Known: {', '.join(sorted(registered))}.")


registry: Registry[Format] = Registry("checkpoint format", package=__name__, group="polyak.formats", unknown=_unknown)


def checkpoint_format(*suffixes: str, in_folders: tuple[str, ...] = ()) -> Callable[[Opener], Opener]:
    """Register the decorated function as the opener of files with these suffixes.

    Args:
        *suffixes: With their dots, such as ".npz".
        in_folders: See `Format`.

    Raises:
        DeclarationError: a suffix is taken or has no dot, or the function has no docstring.
    """

    def register(fn: Opener) -> Opener:
        declared = Format(suffixes, fn, in_folders)
        for suffix in suffixes:
            if not suffix.startswith(".") or suffix in FOREIGN:
                raise DeclarationError(f"{fn.__module__}: a suffix must begin with a dot and be free; got {suffix!r}.")
            registry.declare(suffix, fn, lambda _: declared)
        return fn

    return register


def open_file(path: Path, key: str | None = None) -> Checkpoint:
    """Open a file by the format of its suffix.

    Args:
        path: The file.
        key: Path of the state dict, for formats that hold more than one.

    Raises:
        UnsupportedFormat: no format has this suffix.
        CheckpointError: the file is damaged, or its format has no keys.
    """
    try:
        declared = registry.resolve(path.suffix)
    except UnsupportedFormat:
        *most, last = registry
        expected = f"{', '.join(most)} or {last}"
        raise UnsupportedFormat(f"{path}: expected a folder, or a file with the suffix {expected}.") from None
    if "key" in signature(declared.open).parameters:
        return declared.open(path, key=key)
    if key is not None:
        raise CheckpointError(
            f"{path} has no state dict at key {key!r:.80}: its format holds one only. Leave out the key."
        )
    return declared.open(path)


def suffixes(*, foreign: bool = False) -> tuple[str, ...]:
    """The suffixes of all formats; with `foreign`, also those that are recognised but cannot be read."""
    registry.load_all()
    return (*registry, *(FOREIGN if foreign else ()))


def suffixes_in_folders() -> tuple[str, ...]:
    """The suffixes that weight files have on the Hugging Face Hub, safetensors first."""
    registry.load_all()
    every = dict.fromkeys(suffix for declared in registry.values() for suffix in declared.in_folders)
    return tuple(sorted(every, key=lambda suffix: (suffix != ".safetensors", suffix)))
